#!/bin/bash
# Builds the packages `outboard` (clients; all that is Outboard's own) and `outboard-server` (what
# controllers and agents need besides), as deb and as rpm, from what was built. No root needed.
# SPDX-License-Identifier: Apache-2.0
#
# usage: tools/package.sh BUILD
set -euo pipefail
cd "$(dirname "$0")/.."

build=${1:?usage: tools/package.sh BUILD}
stage=$build/package/root
lib=$stage/usr/lib/outboard
server=$build/package/server
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' src/outboard/__init__.py)

rm -rf "$build/package"
install -d "$lib/python" "$lib/bin" "$lib/lib/shim" "$lib/lib/softgpu" "$stage/usr/bin"

# --- Python: the sources as they are; the distribution's interpreter runs them ----------------------
git ls-files --cached --others --exclude-standard src/outboard | grep -v '/templates/' |
  while read -r file; do install -Dm644 "$file" "$lib/python/${file#src/}"; done
git ls-files --cached --others --exclude-standard src/outboard/service/templates |
  while read -r file; do install -Dm644 "$file" "$lib/python/${file#src/}"; done
cat >"$stage/usr/bin/outboard" <<'SCRIPT'
#!/usr/bin/python3 -Es
# The command `outboard` of the distribution's package.
# SPDX-License-Identifier: Apache-2.0
import sys

sys.path.insert(0, "/usr/lib/outboard/python")
sys.dont_write_bytecode = True
from outboard.cli import main  # noqa: E402

raise SystemExit(main())
SCRIPT
chmod 755 "$stage/usr/bin/outboard"
python3 -m compileall -q --invalidation-mode unchecked-hash -s "$stage" "$lib/python"

# --- native files, without what only debuggers need -------------------------------------------------
strip --strip-unneeded -o "$lib/bin/outboard-worker" "$build/bin/outboard-worker"
chmod 755 "$lib/bin/outboard-worker"
for kind in shim softgpu; do
  for name in libcuda.so.1 libnvidia-ml.so.1; do
    strip --strip-unneeded -o "$lib/lib/$kind/$name" "$build/lib/$kind/$name"
    chmod 644 "$lib/lib/$kind/$name"
    ln -s "$name" "$lib/lib/$kind/${name%.1}"
  done
done

# --- units, account, documentation ------------------------------------------------------------------
for unit in src/outboard/service/templates/system/*; do
  install -d "$stage/usr/lib/systemd/system"
  sed 's|@OUTBOARD@|/usr/bin/outboard|g' "$unit" >"$stage/usr/lib/systemd/system/${unit##*/}"
done
install -Dm644 packaging/sysusers.conf "$stage/usr/lib/sysusers.d/outboard.conf"
install -Dm644 LICENSE "$stage/usr/share/doc/outboard/copyright"
PYTHONPATH=src .venv/bin/python tools/command_pages.py "$build/package/pages"
for page in packaging/man/*.[1-8] "$build"/package/pages/man/*.1; do
  [ -e "$page" ] || continue
  install -d "$stage/usr/share/man/man${page##*.}"
  gzip -9n <"$page" >"$stage/usr/share/man/man${page##*.}/${page##*/}.gz"
done
install -Dm644 packaging/completion/outboard.bash "$stage/usr/share/bash-completion/completions/outboard"
install -Dm644 "$build/package/pages/completion/outboard.fish" \
  "$stage/usr/share/fish/vendor_completions.d/outboard.fish"
install -Dm644 "$build/package/pages/completion/_outboard" \
  "$stage/usr/share/zsh/vendor-completions/_outboard"

# --- the server's package: the libraries of this interpreter's ABI, and units ------------------------
.venv/bin/python tools/server_libraries.py "$server/usr/lib/outboard/server" >"$build/package/libraries"
python3 -m compileall -q --invalidation-mode unchecked-hash -s "$server" "$server/usr/lib/outboard/server"
for unit in packaging/systemd/*.service; do
  install -Dm644 "$unit" "$server/usr/lib/systemd/system/${unit##*/}"
done
install -d "$server/usr/share/doc/outboard-server"
{ cat LICENSE; printf '\nLibraries in /usr/lib/outboard/server; their licences are in their dist-info folders:\n'
  cat "$build/package/libraries"; } >"$server/usr/share/doc/outboard-server/copyright"
abi=$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
next=${abi%.*}.$((${abi#*.} + 1))

for kind in deb rpm; do
  for name in nfpm nfpm-server; do
    STAGE=$stage SERVER=$server VERSION=$version ABI=$abi NEXT_ABI=$next .venv/bin/nfpm package \
      --config "packaging/$name.yaml" --packager "$kind" --target "$build/package/" \
      >"$build/package/log" 2>&1 || { cat "$build/package/log" >&2; exit 1; }
  done
done
du -h "$build"/package/*.deb "$build"/package/*.rpm
