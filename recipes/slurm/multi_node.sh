#!/bin/bash
# Several nodes, the model spread over all of their GPUs (FSDP2): prune, recover, validate, save.
#
#   sbatch multi_node.sh --config llama3-distillation.yaml --model.path meta-llama/Meta-Llama-3-8B
#   sbatch --nodes=4 multi_node.sh --config llama3-wanda-dense.yaml
#
# As single_node.sh otherwise: the arguments are those of `lightning-prune fit`, and a job whose time
# is up is queued again and goes on. Each process loads the whole model on its CPU while it is pruned,
# so a node needs eight times that in memory; --ntasks-per-node, with --gpus-per-node, makes it less.
#SBATCH --job-name=lightning-prune
#SBATCH --nodes=2
#SBATCH --gpus-per-node=8
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --mem=0
#SBATCH --time=24:00:00
#SBATCH --signal=SIGUSR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

set -euo pipefail

export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"  # srun does not inherit it
# A process that hangs in a collective fails after a while, and takes the others with it.
export TORCH_NCCL_ASYNC_ERROR_HANDLING=1

srun --kill-on-bad-exit=1 lightning-prune fit \
    --trainer.accelerator gpu \
    --trainer.strategy fsdp2 \
    --trainer.num_nodes "${SLURM_JOB_NUM_NODES}" \
    --trainer.devices "${SLURM_NTASKS_PER_NODE}" \
    "$@"
