"""Media: fields of a row or a message that hold an image, sound or video beside the text.

Without them nobody knows what an answer is about, so such a row is not scored.
"""

from collections.abc import Mapping

from sf_ray.corpus.fields import is_blank, refuse
from sf_ray.corpus.status import Status

MEDIA = ("image", "images", "audio", "audios", "video", "videos")


def refuse_media(fields: Mapping[str, object]) -> None:
    """Refuses a row or a message that has an image, sound or video.

    Raises:
        FieldError: Names the field.
    """
    if fields.keys().isdisjoint(MEDIA):  # nearly always
        return
    for name in MEDIA:
        value = fields.get(name)
        if value is not None and not is_blank(value):
            refuse(
                f"{name!r} is not empty, and only text can be scored; where it is no part of "
                "the question, drop or rename it",
                Status.UNSUPPORTED_PART,
            )
