#!/usr/bin/env bash
# Every method of the registry in every form with the shipped base, 200 steps each: on ISBI 2012, and
# what answers with several classes on CamVid. Finished runs are kept: the same command goes on. METHODS=a,b in the
# environment takes these alone.
#     benchmarks/methods.sh isbi2012 ISBI2012_FOLDER OUT_FOLDER
#     benchmarks/methods.sh camvid CAMVID_FOLDER OUT_FOLDER
set -euo pipefail
part=$1 root=$2 out=$3
common="data.root=$root data.name=$part seeds=1 prompts.train=none prompts.eval=none
  data.augment=flips train.max_steps=200 train.batch_size=1 train.lr=1e-3 train.eval_every=200
  output=$out/$part"
case $part in
isbi2012)
  methods=$(samtune methods --json | tail -n 1 | python3 -c '
import json, sys
print(",".join(
    name
    for m in json.load(sys.stdin) if m["name"] != "none" and "nano" in m["backbones"]
    for name in (m["name"], *(m["name"] + ":" + form for form in m["forms"]))
))')
  samtune compare methods="${METHODS:-decoder,hq,hq:sum,prompt_free,prompt_free:random,$methods}" $common
  ;;
camvid)
  samtune compare decoder.name=semantic decoder.classes=11 train.loss="ce + multi_dice" $common \
    methods="${METHODS:-decoder,semantic:conv,semantic:samed,lora,adaptformer,gsam,sm_adaptformer,head_lora,head_conv_lora,samus}"
  ;;
esac
