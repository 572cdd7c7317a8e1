# Short names for the scripts; the scripts do the work.

# Lists the recipes.
default:
    @just --list

# Format, lints, licences, all tests; arguments go to the test runner.
test *args:
    scripts/test {{args}}

# Builds the program and tries it on a directory.
quickstart path *args:
    scripts/quickstart {{quote(path)}} {{args}}

# Builds the static program for the image.
static:
    scripts/static

# How long the program's functions are.
lengths:
    scripts/function-lengths

# A daemon through a simulated year on real repositories, with twenty deaths; the suite does a quarter.
year:
    HOLDFAST_YEAR_DAYS=365 cargo nextest run --locked --profile year --no-capture year::

# The retention protocol searched through, the larger worlds too: some minutes, some gigabytes.
check-protocol:
    HOLDFAST_PROTOCOL_LARGE=1 cargo nextest run --locked --profile year --no-capture protocol::

# Every decoder fuzzed, coverage-guided: so many seconds a target (a minute where nothing is said).
fuzz *args:
    scripts/fuzz {{args}}
# Ten thousand histories of several actors on failing regions; or `just simulate SEED`, `just simulate FROM..TO` (docs/simulation.md).
simulate what="0..10000":
    HOLDFAST_SIMULATE={{quote(what)}} cargo nextest run --locked --profile simulate --no-capture simulation::as_asked

# Bugs on purpose, which the simulation must notice: some minutes to build, some seconds each; or `just mutants NUMBER...`.
mutants *args:
    scripts/mutants {{args}}

# The same work by Holdfast and by the peers on PATH (restic, rustic, borg): about an hour, 10 GB of memory.
race *args:
    scripts/race {{args}}

# One round of the race on sources and random data.
race-quick:
    scripts/race --rounds 1 --corpora sources,random

# Huge single cases (20 GiB half sparse, a million files, 2 TiB sparse): 31 GB of disk, removed again.
huge *args:
    scripts/huge {{args}}

# Three S3 servers, of which one is killed, one slow, one rotten, one emptied: figures, in 9 GB of /dev/shm.
regions-show *args:
    scripts/regions-show {{args}}

# A real etcd beside restic and borg: bytes, seconds, one value out of a snapshot, latency and what a loss costs: half an hour.
etcd-show *args:
    scripts/etcd-show {{args}}

# What a day of SQLite and PostgreSQL in a volume costs, beside restic and borg.
databases-show *args:
    scripts/databases-show {{args}}

# A model restored onto a disk, beside a plain copy.
models-disk *args:
    scripts/models-disk {{args}}

# What differences from a parent's tensors would save.
xor-show *args:
    scripts/xor-show {{args}}

# A real daemon for ten real minutes, a region taken away and given back.
soak *args:
    scripts/soak {{args}}

# Ten thousand policies: time to load, and what an idle daemon costs with them.
many-policies *args:
    scripts/many-policies {{args}}

# Two backing up, one pruning, one replicating, anybody killed at random, for ten minutes: then everything kept restores.
soak-prune *args:
    scripts/soak-prune {{args}}
