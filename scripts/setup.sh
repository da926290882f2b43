#!/usr/bin/env bash
# Make .venv with everything that '.[all,dev]' needs, system libraries included. `make` calls this when it is due.
# PYTHON=... names the interpreter to build it on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { echo "setup: $*"; }
fail() {
    say "$*" >&2
    exit 1
}

# --- Python ---------------------------------------------------------------------------------------------------------

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; }

# 3.11 first: it is the version that constraints.txt was resolved and tested with.
find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.11 python3 python3.12 python3.13}; do
        new_enough "$candidate" && echo "$candidate" && return
    done
    fail "Python 3.11 or newer is needed: ${PYTHON:-python3} is not; install one or name it with PYTHON=..."
}
python=$(find_python)

# --- System libraries -----------------------------------------------------------------------------------------------

# What the wheels open but do not carry, and Debian's package for it. Each is tried by loading it, not by asking dpkg:
# that is right on every Linux, wherever its libraries come from.
libraries=(
    libEGL.so.1=libegl1                # MediaPipe's tasks
    libGLESv2.so.2=libgles2            # MediaPipe's tasks
    libGL.so.1=libgl1                  # OpenCV
    libgthread-2.0.so.0=libglib2.0-0   # OpenCV
    libportaudio.so.2=libportaudio2    # the microphone
)

missing_packages() {
    # Debian's python3 comes without ensurepip, and so without the means to put pip into an environment.
    "$python" -c 'import ensurepip' 2> /dev/null ||
        "$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'
    local library
    for library in "${libraries[@]}"; do
        "$python" -c 'import ctypes, sys; ctypes.CDLL(sys.argv[1])' "${library%=*}" 2> /dev/null || echo "${library#*=}"
    done
}
mapfile -t packages < <(missing_packages)

# What only tests need, who skip without: a program, or a file by its pattern, and Debian's package for it.
tools=(
    pulseaudio=pulseaudio       # a sound server of their own
    pacat=pulseaudio-utils      # to play into it
    espeak-ng=espeak-ng         # a voice
    /usr/sbin/mosquitto=mosquitto    # a broker
    chromium=chromium           # a browser
    chromedriver=chromium-driver     # to look through it
    "/usr/lib*/*/alsa-lib/libasound_module_pcm_pulse.so=libasound2-plugins"    # to hear it through PortAudio
)

missing_tools() {
    local tool
    for tool in "${tools[@]}"; do
        command -v "${tool%=*}" > /dev/null || compgen -G "${tool%=*}" > /dev/null || echo "${tool#*=}"
    done
}
mapfile -t test_packages < <(missing_tools)

if [ "$(id -u)" -eq 0 ]; then as_root=(); else as_root=(sudo -n); fi
may_install() { command -v apt-get > /dev/null && "${as_root[@]}" true 2> /dev/null; }
apt_get() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq "$@" > /dev/null; }
# The lists of packages may be absent or too old; fetching them takes longer than trying.
install_packages() {
    say "installing the system packages $*"
    apt_get install -y --no-install-recommends "$@" 2> /dev/null || {
        apt_get update && apt_get install -y --no-install-recommends "$@"
    }
}

if [ "${#packages[@]}" -gt 0 ]; then
    if ! command -v apt-get > /dev/null; then
        fail "this system lacks what Debian calls ${packages[*]}: install it, then run this again"
    elif ! may_install; then
        fail "system packages are missing; run: sudo apt-get install -y --no-install-recommends ${packages[*]}"
    fi
    install_packages "${packages[@]}"
    mapfile -t packages < <(missing_packages)
    [ "${#packages[@]}" -eq 0 ] || fail "installed, but $python still does not find what is in ${packages[*]}"
fi
if [ "${#test_packages[@]}" -gt 0 ]; then
    { may_install && install_packages "${test_packages[@]}" 2> /dev/null; } ||
        say "some tests will be skipped; they need what Debian calls ${test_packages[*]}"
fi

# --- The environment ------------------------------------------------------------------------------------------------

# `unfinished` is there from before the first package until after the last. Where an earlier run left it, pip may have been
# stopped in the middle of a package, which it would take for installed: only an environment from nothing is sure.
unfinished=.venv/.unfinished
installed=.venv/.installed

if [ -e "$unfinished" ] || ! .venv/bin/python -m pip --version > /dev/null 2>&1; then
    say "making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
fi
touch "$unfinished"
say "installing the packages into .venv: several minutes the first time, and about 6 GB," \
    "because torchaudio 2.11 loads with PyTorch's CUDA build alone"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input -c constraints.txt -e '.[all,dev]'
# Keeps the time of the start, so that a file changed meanwhile counts as changed.
mv "$unfinished" "$installed"
say "done"
