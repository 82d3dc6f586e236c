#!/usr/bin/env bash
# Start N processes of one program on this machine:  launch/local.sh N -- command [argument...]   (see local.py)
set -euo pipefail
exec "${PYTHON:-python3}" "$(dirname "${BASH_SOURCE[0]}")/local.py" "$@"
