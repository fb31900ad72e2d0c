# Sourced by the scripts: named steps with their seconds.
# shellcheck shell=bash

step_report=()

# step NAME COMMAND…: runs the command, says how long it took, stops the script when it fails.
step() {
  local name=$1 begin end
  shift
  printf '\n== %s\n' "$name"
  begin=$(date +%s)
  if ! "$@"; then
    printf '== %s FAILED\n' "$name" >&2
    exit 1
  fi
  end=$(date +%s)
  step_report+=("$(printf '%5d s  %s' $((end - begin)) "$name")")
}

# Prints what all steps took.
step_summary() {
  printf '\n== time\n'
  printf '%s\n' "${step_report[@]}"
}
