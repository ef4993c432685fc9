"""The loop of a client process: commands from standard input, answers to standard output.

A command is a line of JSON, `[name, arguments]`. Its answer is one too, `{"ok": result}` or
`{"error": text, "errno": number}`. `ClientProcess` is the other end.
"""

import json
import sys


def answer_commands(client: object) -> None:
    """Call the methods of `client` that commands name, until the input ends.

    OSError and ValueError become answers; `errno` is 0 for the latter.
    """
    for line in sys.stdin:
        name, arguments = json.loads(line)
        try:
            answer: dict[str, object] = {"ok": getattr(client, name)(**arguments)}
        except OSError as error:
            answer = {"error": _text(error), "errno": error.errno or 0}
        except ValueError as error:
            answer = {"error": str(error), "errno": 0}
        print(json.dumps(answer), flush=True)


def _text(error: OSError) -> str:
    text = error.strerror or str(error)
    return text if error.filename is None else f"{text}: {error.filename}"
