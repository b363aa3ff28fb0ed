#!/bin/bash
# One node, all of its GPUs: prune, recover, validate, save.
#
#   sbatch single_node.sh --config llama3-distillation.yaml --trainer.strategy ddp
#
# What follows the script's name goes to `lightning-prune fit`. Before the time is up, SLURM sends
# SIGUSR1; Lightning then writes a checkpoint into the run's folder and asks for the job to be queued
# again, and that job goes on from it. While the model is still pruned it is queued again at once, and
# goes on behind the last block. So the run's folder must be one that all nodes see.
#SBATCH --job-name=lightning-prune
#SBATCH --nodes=1
#SBATCH --gpus-per-node=8
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --mem=0
#SBATCH --time=12:00:00
#SBATCH --signal=SIGUSR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

set -euo pipefail

export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"  # srun does not inherit it

# One task for each GPU, and all arguments to each of them.
srun --kill-on-bad-exit=1 lightning-prune fit \
    --trainer.accelerator gpu \
    --trainer.num_nodes "${SLURM_JOB_NUM_NODES}" \
    --trainer.devices "${SLURM_NTASKS_PER_NODE}" \
    "$@"
