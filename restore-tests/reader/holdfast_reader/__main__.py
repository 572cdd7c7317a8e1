"""Lists, restores or checks a repository in one region. Exit code 1: damage or refused; 12: wrong key."""

import argparse
import json
import sys
from pathlib import Path

from .check import Check
from .chunks import Chunks
from .errors import Missing, Refused, WrongKey
from .keys import Secret, open_repository
from .objects import Repository
from .region import Region
from .restore import Restore
from .tree import Tree


def arguments():
    parser = argparse.ArgumentParser(prog="holdfast_reader", description=__doc__)
    parser.add_argument("--region", metavar="FOLDER")
    secret = parser.add_mutually_exclusive_group()
    for option in SECRETS:
        secret.add_argument(f"--{option}-file", metavar="FILE")
    parser.add_argument("--snapshot", metavar="PREFIX", default="latest", help="digits of an id, or latest")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--list", action="store_true", help="visible snapshots, one JSON object each")
    what.add_argument("--restore", metavar="TARGET", help="a directory that is empty or not there")
    what.add_argument("--check", action="store_true", help="open every object; one JSON object")
    what.add_argument("--vectors", metavar="FILE", help="check this reader against a file of test vectors")
    return parser.parse_args()


SECRETS = {"passphrase": Secret.passphrase, "key": Secret.key_file, "recovery-key": Secret.recovery}


def secret(args):
    for option, make in SECRETS.items():
        file = getattr(args, f"{option}_file".replace("-", "_"))
        if file:
            return make(Path(file).read_bytes())
    raise SystemExit("a secret is needed")


def choose(snapshots, prefix):
    """The one snapshot that is meant."""
    if prefix == "latest":
        found = snapshots[-1:]
    else:
        found = [s for s in snapshots if s.body[1].hex().startswith(prefix.lower())]
    if len(found) != 1:
        raise Missing(f"{len(found)} visible snapshots are {prefix}")
    return found[0]


def show(snapshots):
    for signed in snapshots:
        body = signed.body
        line = {"id": body[1].hex(), "name": body[2][1], "start": body[5], "mode": body[3], "generation": body[16]}
        print(json.dumps(line | {"files": body[8][0], "bytes": body[8][4], "tags": body[23]}))


def restore(repository, snapshot, target):
    chunks = Chunks(repository)
    run = Restore(Tree(chunks, snapshot.body[17]))
    run.run(snapshot.body[7], target)
    print(json.dumps({"files": run.files, "bytes": run.bytes, "notes": chunks.notes + run.notes}))
    return 1 if run.notes else 0


def main(args):
    if args.vectors:
        from .vectors import check_file

        return check_file(args.vectors)
    region = Region(args.region)
    repository = Repository(region, *open_repository(region, secret(args)))
    if args.check:
        return Check(repository).run()
    snapshots, notes = repository.snapshots()
    for note in notes:
        print(note, file=sys.stderr)
    if args.list:
        show(snapshots)
        return 0
    return restore(repository, choose(snapshots, args.snapshot), args.restore)


try:
    sys.exit(main(arguments()))
except WrongKey as error:
    print(f"wrong key: {error}", file=sys.stderr)
    sys.exit(12)
except (Refused, OSError, OverflowError) as error:
    print(error, file=sys.stderr)
    sys.exit(1)
