"""YAML text to plain Python objects, strictly: nothing is guessed, and nothing is dropped.

PyYAML composes the node tree, and this module makes the objects. So it finds a key that is given
twice, of which PyYAML silently keeps the last. No tag runs a constructor. A number must be
written as a number: YAML 1.1 reads ``1:30`` as 90 and ``010`` as 8.
"""

import re

import yaml

from belatwist.config.refusals import RefusalError, refuse, show, show_key
from belatwist.errors import ConfigError
from belatwist.text import escape, shorten

_MAX_DEPTH = 20
_INT = re.compile(r"[+-]?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[+-]?[0-9]{1,18}\.[0-9]{0,18}")
_VARIABLE = re.compile(r"\$\{\w*")
_NOT_EXPANDED = (
    "variables are not expanded; write the value itself, or make the file with a tool that expands"
    " them, such as envsubst"
)
_BOOLS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class _Composer(yaml.SafeLoader):
    """Refuses aliases and deep nesting, either of which lets a small file use much memory."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent):
            raise RefusalError(f"line {line}: aliases (*) are not allowed")
        if self.depth >= _MAX_DEPTH:
            raise RefusalError(f"line {line}: nested too deeply")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def read_yaml(text: str, source: str) -> object:
    """Read one YAML document.

    :param text: the file's text.
    :param source: the file's name, for messages.
    :return: nested dicts (keys are texts), lists, texts, ints, floats, bools and ``None``;
        ``None`` for a text without a document.
    :raises ConfigError: ``<source>:<line>:<column>: <reason>`` where the text is not YAML.
    :raises RefusalError: for a key that is given twice or is not text, an alias, a tag, or a
        variable (``${…}``) in a value.
    """
    composer = None
    try:
        composer = _Composer(text)
        node = composer.get_single_node()
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n"), len(before) - before.rfind("\n") - 1
        raise _error(source, line, column, "a character that YAML does not allow") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(part for part in (error.context, error.problem) if part)
        if mark and text[: mark.index + 1].endswith("${"):
            what = f"${{…}}: {_NOT_EXPANDED}"  # YAML sees a mapping within the text.
        raise _error(source, mark.line if mark else 0, mark.column if mark else 0, what) from None
    except (ValueError, OverflowError):
        # PyYAML lets these escape from an escape sequence or a directive out of range.
        line, column = (composer.line, composer.column) if composer else (0, 0)
        raise _error(source, line, column, "a number out of range") from None
    return None if node is None else _plain(node, "")


def _error(source: str, line: int, column: int, what: str) -> ConfigError:
    return ConfigError(escape(f"{source}:{line + 1}:{column + 1}: {shorten(what, 200)}"))


def _plain(node: yaml.Node, path: str) -> object:
    kind = node.tag.removeprefix("tag:yaml.org,2002:")
    match node:
        case yaml.MappingNode() if kind == "map":
            return _mapping(node, path)
        case yaml.SequenceNode() if kind == "seq":
            return [_plain(item, f"{path}[{i}]") for i, item in enumerate(node.value)]
        case yaml.ScalarNode() if kind in _SCALARS:
            if (variable := _VARIABLE.search(node.value)) is not None:
                # Without a default that may stand behind the name, and be a secret.
                shown = show(variable[0] + "}")
                refuse(path or "top level", shown, _NOT_EXPANDED)
            return _scalar(kind, node.value)
        case _:
            raise RefusalError(
                f"{path or 'top level'}: line {_line(node)}: tags (!) are not allowed"
            )


_SCALARS = ("str", "null", "bool", "int", "float", "timestamp", "merge", "value")


def _mapping(node: yaml.MappingNode, path: str) -> dict[str, object]:
    found: dict[str, object] = {}
    lines: dict[str, int] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            refuse(path or "top level", f"line {_line(key_node)}", "a key must be text")
        key = key_node.value
        inner = join(path, key)
        if key in lines:
            refuse(inner, f"given again on line {_line(key_node)}", f"first on line {lines[key]}")
        lines[key] = _line(key_node)
        found[key] = _plain(value_node, inner)
    return found


def _scalar(kind: str, text: str) -> object:
    match kind:
        case "null":
            return None
        case "bool" if text.lower() in _BOOLS:
            return _BOOLS[text.lower()]
        case "int" if _INT.fullmatch(text):
            return int(text)
        case "float" if _FLOAT.fullmatch(text):
            return float(text)
        case _:
            return text


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1


def join(path: str, key: str) -> str:
    """Return the path of a key inside the mapping at a path."""
    name = show_key(key)
    return f"{path}.{name}" if path else name
