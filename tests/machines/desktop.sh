# What a display manager starts for who has logged in, less the display: it reads the profiles, as
# gdm's, lightdm's and sddm's sessions do, and runs a program itself, as a terminal in it would, and by
# the user's manager, as GNOME and KDE run what is in their menus.
# SPDX-License-Identifier: Apache-2.0
#
# usage: sh desktop.sh COMMAND…
for file in /etc/profile "$HOME/.profile"; do
  [ ! -r "$file" ] || . "$file"
done
"$@"
systemd-run --user --quiet --wait --pipe "$@"
