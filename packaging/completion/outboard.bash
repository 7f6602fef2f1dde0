# Completion of `outboard` for bash: commands, actions, options as each command's help lists them.
# SPDX-License-Identifier: Apache-2.0
_outboard() {
  local word=${COMP_WORDS[COMP_CWORD]} at
  # What follows the options of `run` is a command of its own.
  if [ "${COMP_WORDS[1]-}" = run ]; then
    for ((at = 2; at < COMP_CWORD; at++)); do
      case ${COMP_WORDS[at]} in
        --) _command_offset $((at + 1)) && return ;;
        -n | -p | -m | --wait | --gpus | --fraction | --memory) at=$((at + 1)) ;;
        --filter | --server | --name | --time | --priority) at=$((at + 1)) ;;
        -*) ;;
        *) _command_offset "$at" && return ;;
      esac
    done
  fi
  if [ "$COMP_CWORD" = 1 ]; then
    mapfile -t COMPREPLY < <(compgen -W "$(outboard --help 2>/dev/null |
      sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p')" -- "$word")
  elif [ "${COMP_WORDS[1]}" = service ] && [ "$COMP_CWORD" = 2 ]; then
    mapfile -t COMPREPLY < <(compgen -W "$(outboard service --help 2>/dev/null |
      grep -o '{[a-z,-]*}' | head -1 | tr '{},' '   ')" -- "$word")
  elif [[ $word == -* ]]; then
    local words=("${COMP_WORDS[@]:1:1}")
    [ "${COMP_WORDS[1]}" = service ] && words=("${COMP_WORDS[@]:1:2}")
    mapfile -t COMPREPLY < <(compgen -W "$(outboard "${words[@]}" --help 2>/dev/null |
      grep -oE '(^| )--?[a-z][a-z-]*')" -- "$word")
  else
    mapfile -t COMPREPLY < <(compgen -f -- "$word")
  fi
}
complete -o filenames -F _outboard outboard
