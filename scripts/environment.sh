# Read by scripts/run and scripts/test: makes .venv with what a lock names, once.
# POSIX sh; the working directory is the project's.

# The first Python that is new enough; PYTHON=... overrides.
find_python() {
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "No Python 3.11 or later found (tried ${PYTHON:-python3, python3.13, python3.12, python3.11}). Install the package python3.11, or name one: PYTHON=/path/to/python $0" >&2
    return 1
}

make_venv() {
    python=$(find_python)
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        echo "'$python -m venv' is missing. Install the package python3-venv (Debian, Ubuntu: apt-get install python3-venv)." >&2
        return 1
    fi
    "$python" -m venv --clear .venv
}

# What an installation depends on: the lock, the project file, and where the project lies.
fingerprint() {
    { pwd -P; cat "requirements/$1.lock" pyproject.toml; } | cksum
}

is_installed() {
    [ -f ".venv/installed-$1" ] && [ "$(cat ".venv/installed-$1")" = "$(fingerprint "$1")" ]
}

# A moved or half-made .venv is made anew.
is_sound_venv() {
    .venv/bin/python -c 'import pip' 2>/dev/null && grep -qF "$(pwd -P)/.venv" .venv/bin/activate
}

# install LOCK: the locked requirements, and the project itself in place.
install() {
    echo "Installing requirements/$1.lock into .venv, once; this takes a minute" >&2
    if ! is_sound_venv; then make_venv; fi
    rm -f .venv/installed-*
    .venv/bin/python -m pip install --quiet --disable-pip-version-check \
        --require-hashes --no-deps -r "requirements/$1.lock"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check \
        --no-deps --no-build-isolation --editable .
    fingerprint "$1" >".venv/installed-$1"
}
