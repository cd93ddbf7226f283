"""As many powers of 2 as a GPU makes: each program keeps its numbers in registers."""

import torch
import triton
import triton.language as tl


@triton.jit(do_not_specialize=["n_times"])
def _powers(out, n_times, SIZE: tl.constexpr):
    place = tl.arange(0, SIZE)
    number = place * (-1.0 / SIZE)
    for _ in range(n_times):
        number = -tl.exp2(number)
    tl.store(out + tl.program_id(0) * SIZE + place, number)


def powers(n, device, size=4096):
    """Make at least n of them, by 16 programs for each multiprocessor."""
    programs = 16 * torch.cuda.get_device_properties(device).multi_processor_count
    out = torch.empty(programs * size, device=device)
    _powers[(programs,)](out, -(-n // (programs * size)), SIZE=size, num_warps=8)
    return out
