#!/usr/bin/env bash
# Run a queue of trainings on the CPU, one after another, with nnU-Net's own command; start it again at any time.
#
#   run_queue.sh QUEUE FOLDER
#
# QUEUE has a line "DATASET CONFIGURATION PLANS TRAINER FOLD" for each training and may grow while it runs ("#" starts a
# comment). FOLDER holds nnUNet_raw, nnUNet_preprocessed and nnUNet_results. A training that has its
# validation/summary.json is left alone, one with a checkpoint goes on with --c, one that fails is reported at the end.
set -uo pipefail
queue=$(realpath "$1") folder=$(realpath "$2")
export nnUNet_raw="$folder/nnUNet_raw" nnUNet_preprocessed="$folder/nnUNet_preprocessed" nnUNet_results="$folder/nnUNet_results"
export NNUNET_ATTN_THREADS=1 OMP_NUM_THREADS=1 nnUNet_n_proc_DA=0 nnUNet_def_n_proc=1
exec 9>"$folder/.queue.lock"
flock -n 9 || { echo "another run_queue.sh works on $folder"; exit 1; }

failed=()
next() { # the first line of the queue that is neither complete nor has failed in this run
    while read -r dataset configuration plans trainer fold _; do
        [[ -z "$dataset" || "$dataset" == "#"* ]] && continue
        local line="$dataset $configuration $plans $trainer $fold"
        local found=("$nnUNet_results"/Dataset"$(printf %03d "$dataset")"_*/"${trainer}__${plans}__${configuration}/fold_$fold/validation/summary.json")
        [[ -e "${found[0]}" || " ${failed[*]-} " == *" ${line// /,} "* ]] && continue
        echo "$line"
        return
    done <"$queue"
}

while line=$(next) && [[ -n "$line" ]]; do
    read -r dataset configuration plans trainer fold <<<"$line"
    model=("$nnUNet_results"/Dataset"$(printf %03d "$dataset")"_*/"${trainer}__${plans}__${configuration}/fold_$fold")
    go_on=()
    compgen -G "${model[0]}/checkpoint_*.pth" >/dev/null && go_on=(--c)
    echo "$(date -Is) $line ${go_on[*]-}"
    nnUNetv2_train "$dataset" "$configuration" "$fold" -p "$plans" -tr "$trainer" -device cpu "${go_on[@]}" \
        </dev/null >"$folder/last_training.log" 2>&1 || { failed+=("${line// /,}"); echo "$(date -Is) FAILED $line"; cp "$folder/last_training.log" "$folder/failed_${trainer}_$fold.log"; }
done
echo "$(date -Is) queue done, ${#failed[@]} failed: ${failed[*]-}"
[[ ${#failed[@]} -eq 0 ]]
