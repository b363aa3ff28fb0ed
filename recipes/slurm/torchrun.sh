#!/bin/bash
# As multi_node.sh, where processes are started by torchrun and not by srun: one task, and in it one
# agent of torchrun, on each node.
#
#   sbatch torchrun.sh --config llama3-distillation.yaml --model.path meta-llama/Meta-Llama-3-8B
#
# Lightning asks for no requeueing then, so this script does. Pruning goes on behind the last block
# that it had finished, training from the last checkpoint: have one written often enough, such as
#   --trainer.callbacks+=ModelCheckpoint --trainer.callbacks.every_n_train_steps=100
#   --trainer.callbacks.save_last=true
# (Without SLURM: the line with torchrun, on each node, with the values that SLURM sets.)
#SBATCH --job-name=lightning-prune
#SBATCH --nodes=2
#SBATCH --gpus-per-node=8
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=64
#SBATCH --mem=0
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

set -euo pipefail

export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"
export OMP_NUM_THREADS="$((SRUN_CPUS_PER_TASK / SLURM_GPUS_ON_NODE))"
export TORCH_NCCL_ASYNC_ERROR_HANDLING=1
FIRST_NODE="$(scontrol show hostnames "${SLURM_JOB_NODELIST}" | head -n 1)"
export FIRST_NODE

# SLURM sends SIGTERM to a job that is queued again; torchrun passes it on to its processes.
trap 'scontrol requeue "${SLURM_JOB_ID}"' USR1

# shellcheck disable=SC2016  # each node has its own SLURM_NODEID
srun --kill-on-bad-exit=1 bash -c '
    torchrun --nnodes "${SLURM_JOB_NUM_NODES}" --node-rank "${SLURM_NODEID}" \
        --nproc-per-node "${SLURM_GPUS_ON_NODE}" --rdzv-backend static --rdzv-id 1 \
        --rdzv-endpoint "${FIRST_NODE}:$((15000 + SLURM_JOB_ID % 10000))" \
        -m lightning_prune fit --ckpt_path last \
        --trainer.accelerator gpu \
        --trainer.strategy fsdp2 \
        --trainer.num_nodes "${SLURM_JOB_NUM_NODES}" \
        --trainer.devices "${SLURM_GPUS_ON_NODE}" \
        "$@"' bash "$@" &
step=$!
status=0
wait "${step}" || status=$?
while kill -0 "${step}" 2> /dev/null; do  # a signal has ended the waiting, not the step
    status=0
    wait "${step}" || status=$?
done
exit "${status}"
