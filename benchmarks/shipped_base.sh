#!/usr/bin/env bash
# Fine-tunes the shipped base on two public data sets, with boxes and without prompts:
#     benchmarks/shipped_base.sh KVASIR_SEG_FOLDER ISBI2012_FOLDER OUT_FOLDER
set -euo pipefail
kvasir=$1 isbi=$2 out=$3
train="train.max_steps=200 train.eval_every=200 train.lr=2e-3 data.augment=flips adapter.rank=8"
for prompt in none box; do
  samtune train data.root="$kvasir" prompts.train=$prompt prompts.eval=$prompt $train output="$out/kvasir-$prompt"
  samtune train data.root="$isbi" data.objects=component data.min_area=50 \
    prompts.train=$prompt prompts.eval=$prompt $train output="$out/isbi2012-$prompt"
done
