"""AttnLRP: a backward pass whose gradients, times what they belong to, are relevance.

Inside the context the model computes what it always does; only what flows back is changed. Then
x · ∂y/∂x is the relevance of an activation x for an output y, and w · ∂y/∂w that of a weight: how
much of the output came through it. Linears, residual additions, rotary embeddings and the softmax
keep their gradients. The others:

| layer | what flows back through it |
|---|---|
| activation f | the gradient times f(x) / x, as if f were that factor |
| RMSNorm | the norm counts as a constant; the weight is a factor as ever |
| LayerNorm | the standard deviation counts as a constant, the mean does not |
| gate · up of a gated MLP | half of the gradient to each factor |
| attention | a quarter of the gradient to queries and keys each, half to values |

Queries, keys and values are three factors in two products, (q kᵀ) and softmax(…) v: each product
halves what flows back through it, as the gated MLP's does.

Source: Achtibat et al., "AttnLRP: Attention-Aware Layer-Wise Relevance Propagation for
Transformers", arXiv 2402.05602, in the form of gradients times inputs; used for pruning by Hatefi
et al., arXiv 2506.13727. The authors' own package (LXT) is under a licence without a patent grant;
nothing of it is used here.

Differs from LXT: it replaces functions of transformers' classes, of every model in the process and
for good; here hooks stand on the modules of one model and go with the context. The factors of
attention are applied where queries, keys and values leave their Linears, which is the same, as
nothing between there and the product is changed by a factor; so every attention implementation will
do. f(x) / x is that of a small x where x is 0. Softcaps of logits (Gemma 2) keep their gradients.

Axes: O output features, D features; leading axes are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakSet

import torch
from torch import nn

from lightning_prune.anatomy import Anatomy, Block, Site

__all__ = ["attnlrp"]

_SHARES = {"query": 0.25, "key": 0.25, "value": 0.5}
_TINY = 1e-6  # where f(x) / x is taken if x is nearer to 0
_CHANGED: WeakSet[nn.Module] = WeakSet()
"""Models inside the context."""

Surrogate = Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor]
"""(module, its input, its output) to what gradients are to flow through, in fp32."""


@contextmanager
def attnlrp(model: nn.Module) -> Iterator[None]:
    """Context in which gradients that flow back through a model are those of AttnLRP.

    Forward passes give what they give outside; nothing is left behind. Gradients taken inside are
    of no use for training. Of two contexts inside each other, the inner one changes nothing.

    Args:
        model: a Hugging Face model of a known family.

    Raises:
        ValueError: it is of no known family.
    """
    if model in _CHANGED:
        yield
        return
    anatomy = Anatomy(model)
    with ExitStack() as undo:
        _CHANGED.add(model)
        undo.callback(_CHANGED.discard, model)
        for module, surrogate in _surrogates(anatomy):
            undo.callback(module.register_forward_hook(_through(surrogate)).remove)
        for block in anatomy.blocks:
            for remove in _shared_among_factors(block):
                undo.callback(remove)
        yield


def _surrogates(anatomy: Anatomy) -> Iterator[tuple[nn.Module, Surrogate]]:
    """The modules through which something else flows back, and what."""
    for module in anatomy.model.modules():
        if isinstance(module, nn.LayerNorm):
            yield module, _layer_norm
        elif "RMSNorm" in type(module).__name__:
            yield module, _rms_norm
    for block in anatomy.blocks:
        for module in block.module.modules():
            has_parts = [*module.children(), *module.parameters(), *module.buffers()]
            if not has_parts and not isinstance(module, (nn.Identity, nn.Dropout)):
                yield module, _activation


def _through(
    surrogate: Surrogate,
) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], torch.Tensor | None]:
    """A hook that gives what a module computes, with the gradient of something else."""

    def hook(
        module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
    ) -> torch.Tensor | None:
        if not output.requires_grad:
            return None
        value, instead = output.detach(), surrogate(module, inputs[0], output.detach())
        return value + (instead - instead.detach()).to(value.dtype)

    return hook


def _activation(module: nn.Module, input_D: torch.Tensor, output_D: torch.Tensor) -> torch.Tensor:
    """The input times f(x) / x, which counts as a constant."""
    known_D = input_D.detach().float()
    at_0 = module.forward(torch.full((), _TINY, device=known_D.device)) / _TINY
    factor_D = output_D.float() / known_D.masked_fill(known_D.abs() < _TINY, 1)
    return input_D.float() * factor_D.where(known_D.abs() >= _TINY, at_0)


def _rms_norm(module: Any, input_D: torch.Tensor, output_D: torch.Tensor) -> torch.Tensor:
    """The input times the weight, which some families add 1 to, over the norm: a constant."""
    known_D, epsilon = input_D.detach().float(), _epsilon(module)
    ones_D = torch.ones(known_D.shape[-1], device=known_D.device)
    weight_D = module.forward(ones_D).detach().float() * (1 + epsilon) ** 0.5
    norm_1 = known_D.square().mean(dim=-1, keepdim=True).add(epsilon).rsqrt()
    return input_D.float() * (weight_D * norm_1)


def _layer_norm(
    module: nn.LayerNorm, input_D: torch.Tensor, output_D: torch.Tensor
) -> torch.Tensor:
    """The input less its mean, times the weight, over the deviation: a constant."""
    variance_1 = input_D.detach().float().var(dim=-1, unbiased=False, keepdim=True)
    weight_D = 1 if module.weight is None else module.weight.detach().float()
    centred_D = input_D.float() - input_D.float().mean(dim=-1, keepdim=True)
    return centred_D * (weight_D * (variance_1 + module.eps).rsqrt())


def _epsilon(module: Any) -> float:
    epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    return torch.finfo(torch.float32).eps if epsilon is None else float(epsilon)


def _shared_among_factors(block: Block) -> Iterator[Callable[[], None]]:
    """Let the factors of products share what flows back; yields what takes each hook away."""
    gated = sum(site.table.rows.count("neuron") for site in block.sites) > 1
    for site in block.sites:
        if set(_SHARES) & set(site.table.rows):
            yield site.module.register_forward_hook(_times(_shares(block, site))).remove
        if gated and site.table.columns == "neuron":
            yield site.module.register_forward_pre_hook(_halve).remove


def _shares(block: Block, site: Site) -> torch.Tensor:
    """Of what flows back to queries, keys and values, the part of each, (O,)."""
    heads = {"query": block.heads, "key": block.kv_heads, "value": block.kv_heads}
    return torch.cat(
        [torch.full((heads[role] * block.head_dim,), _SHARES[role]) for role in site.table.rows]
    )


def _times(share_O: torch.Tensor) -> Callable[[nn.Module, Any, torch.Tensor], None]:
    def hook(_: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        if output.requires_grad:
            output.register_hook(lambda gradient: gradient * share_O.to(gradient))

    return hook


def _halve(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    if inputs[0].requires_grad:
        inputs[0].register_hook(lambda gradient: gradient / 2)
