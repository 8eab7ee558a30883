"""YAML text -> its value, of a size that the text could have without repeating itself.

A YAML alias stands for a value that was written before. Aliases of aliases make gigabytes of a few
hundred bytes, so what a text stands for is counted before it is built. Knows no options.
"""

from typing import Any

import yaml

# Values and characters in a configuration, each alias counted as what it stands for.
_MOST = 1_000_000


def yaml_value(text: str, loader: type[yaml.SafeLoader | yaml.BaseLoader] = yaml.SafeLoader) -> Any:
    """The value of YAML text; None for an empty one.

    Args:
        text: The text.
        loader: Decides what scalars mean.

    Raises:
        ValueError: It is no YAML, is nested too deeply, or stands for too much.
    """
    if len(text) > _MOST:
        raise ValueError(f"it has more than {_MOST:,} characters")
    made = loader(text)
    try:
        node = made.get_single_node()
        if node is None:
            return None
        _refuse_large(node)
        return made.construct_document(node)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    finally:
        made.dispose()


def _refuse_large(document: yaml.Node) -> None:
    """Raises where aliases make a document large, or contain themselves, which never ends."""
    left, size = [document], 0
    while left:
        node = left.pop()
        size += 1
        if isinstance(node, yaml.ScalarNode):
            size += len(node.value)
        elif isinstance(node, yaml.SequenceNode):
            left += node.value
        elif isinstance(node, yaml.MappingNode):
            left += [part for pair in node.value for part in pair]
        if size + len(left) > _MOST:
            raise ValueError(
                f"its aliases (*name) stand for more than {_MOST:,} values or characters; write "
                "out what is meant"
            )
