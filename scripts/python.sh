# Sourced by ./run and ./test: sets $python to a Python that is new enough, or says what to install.
python=
for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
  if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
if [ -z "$python" ]; then
  echo "nexus-edge needs Python 3.11 or later (found: $(python3 --version 2>&1 || true)). On Debian 12 or later: apt install python3 python3-venv" >&2
  exit 1
fi
