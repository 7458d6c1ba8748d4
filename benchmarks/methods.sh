#!/usr/bin/env bash
# Every method of the registry with the shipped base on two public data sets, 200 steps each; what
# answers with several classes on CamVid. Finished runs are kept: the same command goes on.
#     benchmarks/methods.sh ISBI2012_FOLDER CAMVID_FOLDER OUT_FOLDER
set -euo pipefail
isbi=$1 camvid=$2 out=$3
methods=$(samtune methods --json | tail -n 1 | python3 -c '
import json, sys
print(",".join(m["name"] for m in json.load(sys.stdin) if m["name"] not in ("none", "stack")))')
samtune compare data.root="$isbi" data.name=isbi2012 methods="decoder,hq,prompt_free,$methods" \
  seeds=1 prompts.train=none prompts.eval=none data.augment=flips \
  train.max_steps=200 train.batch_size=1 train.lr=1e-3 train.eval_every=200 output="$out/isbi2012"
samtune compare data.root="$camvid" data.name=camvid \
  methods=decoder,lora,adaptformer,gsam,sm_adaptformer,head_lora,head_conv_lora,samus \
  decoder.name=semantic decoder.classes=11 train.loss="ce + multi_dice" \
  seeds=1 prompts.train=none prompts.eval=none data.augment=flips \
  train.max_steps=200 train.batch_size=2 train.lr=1e-3 train.eval_every=200 output="$out/camvid"
