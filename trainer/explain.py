"""Sentences for a command that Hydra could not compose; nothing heavy is imported for a typo."""

from __future__ import annotations


def config_error(error: Exception) -> str:
    """Hydra's own message, its cause, and what it leaves unsaid: a remedy, or the file."""
    lines = [str(error)]
    if lines[0].startswith("Config group override must be"):
        lines[0] += "; use <group>=none"
    if isinstance(error, UnicodeDecodeError):
        lines[0] = f"{_file_being_read(error)} is not UTF-8 text: {error.reason}"
    if error.__cause__ is not None:
        lines.append(str(error.__cause__))
    return "\n".join(lines)


def _file_being_read(error: Exception) -> str:
    """Python's decoder does not know which file it decodes; the frame that opened it does."""
    trace, path = error.__traceback__, "a config file"
    while trace is not None:
        path = trace.tb_frame.f_locals.get("full_path", path)
        trace = trace.tb_next
    return str(path)
