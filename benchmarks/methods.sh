#!/usr/bin/env bash
# Every method of the registry in every form with the shipped base, 200 steps each: on ISBI 2012, and
# those that Generalized SAM's paper compares, with several classes, on CamVid. Finished runs are
# kept: the same command goes on. METHODS=a,b in the environment takes these alone.
#     benchmarks/methods.sh isbi2012 ISBI2012_FOLDER OUT_FOLDER
#     benchmarks/methods.sh camvid CAMVID_FOLDER OUT_FOLDER
set -euo pipefail
part=$1 root=$2 out=$3
common="data.root=$root data.name=$part seeds=1 prompts.train=none prompts.eval=none
  data.augment=flips train.max_steps=200 train.batch_size=1 train.lr=1e-3 train.eval_every=200
  output=$out/$part"
case $part in
isbi2012)
  methods=$(python3 -c '
from samtune.cli.catalogue import list_decoders, list_methods
# "decoder" is the tuned one; fusion stands beside the adapters that it reads, semantic on CamVid
rows = [r for r in list_decoders() if "none" in r["adapters"] and r["trainable_parameters"]]
rows = [r for r in rows if r["name"] not in ("tuned", "semantic")]
rows += [r for r in list_methods() if r["name"] != "none" and "nano" in r["backbones"]]
print(",".join(n for r in rows for n in [r["name"], *(r["name"] + ":" + f for f in r["forms"])]))
')
  samtune compare methods="${METHODS:-decoder,$methods}" $common
  ;;
camvid)
  samtune compare decoder.name=semantic decoder.classes=11 train.loss="ce + multi_dice" $common \
    methods="${METHODS:-decoder,semantic:conv,semantic:samed,lora,adaptformer,gsam,sm_adaptformer,head_lora,head_conv_lora,samus}"
  ;;
esac
