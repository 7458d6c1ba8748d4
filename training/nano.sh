#!/usr/bin/env bash
# Trains nano as it ships, in four stages, and exports it:
#     training/nano.sh OUT_FOLDER
# About two hours of one core and three of two; given again after a stop it goes on.
set -euo pipefail
out=$1
here=$(dirname "$0")
export PYTHONPATH="$here/../src${PYTHONPATH:+:$PYTHONPATH}"
export MALLOC_MMAP_THRESHOLD_=4000000000 MALLOC_TRIM_THRESHOLD_=8000000000 MALLOC_TOP_PAD_=268435456
# The first and the last stage in bfloat16 where the processor has its products; elsewhere they are ten times as slow.
precision=$(grep -qsE 'avx512_bf16|amx_bf16' /proc/cpuinfo && echo bf16 || echo fp32)

stage() { # stage NAME OPTIONS: from the beginning, from where it stopped, or done already
  local run=$out/$1
  [ -e "$run/done" ] && return
  if [ -e "$run/last/state.json" ]; then
    python "$here/train_nano.py" --out "$run" --resume
  else
    python "$here/train_nano.py" --out "$run" "${@:2}"
  fi
  [ -e "$run/stop" ] && exit
  touch "$run/done"
}

stage first --minutes 112 --seed 1 --precision "$precision"
stage second --init "$out/first/last/ema.safetensors" --minutes 180 --begin 0.65 --seed 2 --faint 0.5 \
  --precision fp32 --threads 2
stage third --init "$out/second/last/ema.safetensors" --minutes 190 --begin 0.6 --seed 3 --faint 0.35 \
  --exact 0.85 --loose 0.08 --dark 0.2 --scopes 0.25 --precision fp32 --threads 2
stage fourth --init "$out/third/last/ema.safetensors" --minutes 200 --begin 0.86 --seed 4 --faint 0.35 \
  --exact 1.0 --loose 0.05 --dark 0.2 --scopes 0.15 --precision "$precision" --threads 2
python "$here/export_nano.py" "$out/fourth/last" --log "$out/log" --out "$out/nano.safetensors"
