"""Tools over the files of the folder they run in: the arguments are JSON on standard input."""

import json
import pathlib
import sys


def main():
    arguments = json.load(sys.stdin)
    here = pathlib.Path.cwd()
    if sys.argv[1] == "list":
        for path in sorted(here.rglob("*")):
            if path.is_file():
                print(path.relative_to(here))
        return
    path = (here / arguments["path"]).resolve()
    if not path.is_relative_to(here):
        sys.exit("the file is outside the folder")
    try:
        print(path.read_text(), end="")
    except OSError as error:
        sys.exit(f"{arguments['path']}: {error.strerror}")


main()
