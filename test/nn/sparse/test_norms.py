import pytest
import torch

from gena3d_core.errors import InputError
from gena3d_core.nn.sparse import SparseGroupNorm32


def norm(groups=3, channels=6):
    torch.manual_seed(0)
    layer = SparseGroupNorm32(groups, channels)
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(layer.bias)
    return layer


@pytest.mark.parametrize("batch", [1, 3])
def test_each_sample_as_torch_does_it(make, batch):
    layer, x = norm(), make(6, batch=batch)
    wanted = [
        torch.nn.functional.group_norm(s.t()[None], 3, layer.weight, layer.bias, 1e-5)[0].t() for s in x.samples()
    ]
    torch.testing.assert_close(layer(x).feats, torch.cat(wanted))


def test_gradient(make):
    x = make(6, grid=(3, 3, 3))
    layer = norm()
    ours = x.feats.clone().requires_grad_()
    theirs = x.feats.clone().requires_grad_()
    cotangent = torch.randn(x.feats.shape)
    (layer(x.replace(ours)).feats * cotangent).sum().backward()
    wanted = [
        torch.nn.functional.group_norm(s.t()[None], 3, layer.weight, layer.bias, 1e-5)[0].t()
        for s in x.replace(theirs).samples()
    ]
    (torch.cat(wanted) * cotangent).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-4)


def test_large_offset_loses_nothing(make):
    x = make(6, dtype=torch.float32)
    torch.testing.assert_close(norm()(x.replace(x.feats + 1000)).feats, norm()(x).feats, atol=2e-3, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_computes_in_single(make, dtype):
    x = make(6)
    half = x.replace(x.feats.to(dtype))
    found = norm()(half).feats
    assert found.dtype == dtype
    assert torch.equal(found, norm()(half.replace(half.feats.float())).feats.to(dtype))


def test_groups_must_divide():
    with pytest.raises(InputError, match="do not split"):
        SparseGroupNorm32(4, 6)
