#!/usr/bin/env bash
# The shipped base on five public data sets: few shots with the table of prompts, a class a pixel,
# one mask an instance. Finished parts are kept where their folder exists.
#     benchmarks/data_sets.sh KVASIR ISBI2012 CAMVID COCO DSB2018 OUT_FOLDER
set -euo pipefail
kvasir=$1 isbi=$2 camvid=$3 coco=$4 dsb=$5 out=$6
rate="train.lr=1e-3 data.augment=flips"
run() { [ -e "$out/$1/summary.json" ] || samtune train output="$out/$1" $rate "${@:2}"; }

samtune compare data.root="$kvasir" data.name=kvasir methods=lora shots=1,4,16 seeds=3 $rate \
  prompts.train=mixed prompts.eval=box train.max_steps=100 train.batch_size=2 \
  train.eval_every=100 output="$out/kvasir-shots"
[ -e "$out/kvasir-prompts/summary.json" ] || samtune eval \
  "$out/kvasir-shots/lora-16shot-seed0/best.safetensors" data.root="$kvasir" data.shots=null \
  prompts.eval=all output="$out/kvasir-prompts"
trained=()
for prompt in none box point; do
  run "kvasir-$prompt" data.root="$kvasir" data.name=kvasir data.shots=16 prompts.train=$prompt \
    prompts.eval=$prompt train.max_steps=100 train.batch_size=2 train.eval_every=100
  trained+=("$out/kvasir-$prompt/best.safetensors")
done
[ -s "$out/kvasir-matrix.json" ] || samtune eval "${trained[@]}" prompts.eval=all --json \
  output="$out/kvasir-matrix" >"$out/kvasir-matrix.json"
run camvid data.root="$camvid" data.name=camvid decoder.name=semantic decoder.classes=11 \
  prompts.train=none prompts.eval=none "train.loss=ce + multi_dice" eval.metrics=regions \
  train.max_steps=300 train.batch_size=2 train.eval_every=300
run isbi2012-gsam data.root="$isbi" data.name=isbi2012 decoder.name=semantic decoder.classes=2 \
  prompts.train=none prompts.eval=none train.loss=bce \
  eval.metrics=miou,miou_gsam,miou_gsam_dropped train.max_steps=200 train.batch_size=2 \
  train.eval_every=200
run coco data.root="$coco" prompts.train=box prompts.eval=box eval.metrics=instances \
  train.max_steps=200 train.batch_size=2 train.eval_every=200
# The made test split is of five images; those of val2017 chose nothing, there being one checkpoint.
[ -e "$out/coco-val2017/summary.json" ] || samtune eval "$out/coco/best.safetensors" \
  data.split=val output="$out/coco-val2017"
run dsb2018 data.root="$dsb" data.masks=instance prompts.train=box prompts.eval=box \
  eval.metrics=instances train.max_steps=200 train.batch_size=2 train.eval_every=200
