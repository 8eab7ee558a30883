from dataclasses import replace

from sf_ray.storage.lease.holder import Holder


def test_a_holder_of_this_machine_is_seen_to_live_or_to_be_dead() -> None:
    holder = Holder.this_run()
    assert holder.lives_here() is True
    # A later process has the same id, and another start time.
    assert replace(holder, process=f"{holder.process}0").lives_here() is False


def test_whether_a_holder_of_another_machine_lives_cannot_be_seen() -> None:
    assert replace(Holder.this_run(), process="another boot").lives_here() is None
    assert replace(Holder.this_run(), process="").lives_here() is None
