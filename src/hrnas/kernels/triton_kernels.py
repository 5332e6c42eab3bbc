"""The device code of `triton_depthwise`: Triton kernels over channels-last maps.

A map (N, C, H, W) in channels_last memory is a matrix (pixels, C), pixel = (n * H + y) * W + x. Every program owns BC
neighbouring channels of one kernel size, so that a warp reads whole lines of memory. A tile of a convolution has LANES
rows; a lane is a run of TW neighbouring columns of its row, whose sums stay in registers: a value is read and activated
once a kernel row, not once a tap. Rows count over all images, so nothing is lost at the foot of a map.

Names: K kernel size, S stride, c channels, first and last the slice of the channels of one kernel size, (y, column) a
pixel of the input, (oy, ox) one of the output, u a column within a run, q one of those a run reads, start where it
begins to read. A chunk is `steps` tiles one program goes through. ALIGN divides the channels; the compiler needs to
know it to read several at once.
"""

import triton
import triton.language as tl

# What a cut or an image size changes: no reason to compile again.
_SIZES = ["width0", "width1", "width2", "C", "rows", "H", "W", "OH", "OW", "pixels", "steps", "chunks", "taps"]


@triton.jit
def _relu(v):
    return tl.where(v <= 0, 0.0, v)  # nan <= 0 is false: what is not a number passes


@triton.jit
def _read(pointer, offsets, mask):
    return tl.load(pointer + offsets, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _write(pointer, offsets, value, mask):
    tl.store(pointer + offsets, value.to(pointer.dtype.element_ty), mask=mask)


@triton.jit
def _vector(pointer, c, is_channel):
    """Read a per-channel vector as (1, BC), 0 beyond the slice."""
    return _read(pointer, c, is_channel)[None, :]


@triton.jit
def _channels(block, first, last, BC: tl.constexpr):
    c = first + block * BC + tl.arange(0, BC)
    return c, c < last


@triton.jit
def _offsets(pixel, C, c):
    """Return offsets (lanes, BC) into a map; 64 bits, as a wide map has more than 2**31 values."""
    return (pixel.to(tl.int64) * C)[:, None] + c[None, :]


@triton.jit
def _runs(tile, rows, LANES: tl.constexpr, TW: tl.constexpr):
    """Return of every lane of a tile its row and the first column of its run, (LANES,) each.

    Tiles go down first: the rows one shares with the next are then still in the cache.
    """
    row_tiles = tl.cdiv(rows, LANES)
    lane = tl.arange(0, LANES)
    return tile % row_tiles * LANES + lane, tile // row_tiles * TW + lane * 0


@triton.jit
def _inside(reads, column, limit, q: tl.constexpr, PADDING: tl.constexpr):
    """Return where column q of a run is in the map, given where its row is, (LANES, BC)."""
    inside = reads & (column + q < limit)[:, None]
    if q < PADDING:  # further on no run begins left of the map
        inside = inside & (column + q >= 0)[:, None]
    return inside


@triton.jit
def _zeros(COUNT: tl.constexpr, LANES: tl.constexpr, BC: tl.constexpr):
    found = ()
    for _ in tl.static_range(COUNT):
        found = found + (tl.zeros((LANES, BC), tl.float32),)
    return found


@triton.jit
def _add(sums, place: tl.constexpr, value):
    return sums[:place] + (sums[place] + value,) + sums[place + 1 :]


@triton.jit
def _weight_row(weight, c, is_channel, ky, K: tl.constexpr):
    """Read row ky of the kernels of channels c, which count from the slice's first, as K vectors (1, BC)."""
    row = ()
    for kx in tl.static_range(K):
        row = row + (_vector(weight, c * (K * K) + ky * K + kx, is_channel),)
    return row


@triton.jit
def _num_blocks(width0, width1, width2, BC: tl.constexpr):
    return tl.cdiv(width0, BC) + tl.cdiv(width1, BC) + tl.cdiv(width2, BC)


@triton.jit
def _store_sums(partial, chunk, C, c, is_channel, first_sum, second_sum):
    """Store two rows of (chunks, 2, C), summed over the lanes."""
    place = partial + chunk.to(tl.int64) * (2 * C) + c
    tl.store(place, tl.sum(first_sum, axis=0), mask=is_channel)
    tl.store(place + C, tl.sum(second_sum, axis=0), mask=is_channel)


@triton.jit
def _convolve_slice(
    x, scale, shift, weight, out, tile, block, first, last, C, rows, H, W, OH, OW,
    K: tl.constexpr, S: tl.constexpr, BC: tl.constexpr, LANES: tl.constexpr, TW: tl.constexpr,
):  # fmt: skip
    c, is_channel = _channels(block, first, last, BC)
    row, ox = _runs(tile, rows, LANES, TW)
    n, oy = row // OH, row % OH
    start = ox * S - K // 2
    factor, offset = _vector(scale, c, is_channel), _vector(shift, c, is_channel)
    sums = _zeros(TW, LANES, BC)
    for ky in range(K):
        y = oy * S + ky - K // 2
        reads = ((row < rows) & (y >= 0) & (y < H))[:, None] & is_channel[None, :]
        line = x + _offsets((n * H + y) * W + start, C, c)
        w = _weight_row(weight, c - first, is_channel, ky, K)
        for q in tl.static_range((TW - 1) * S + K):
            inside = _inside(reads, start, W, q, K // 2)
            v = _read(line, q * C, inside)
            a = tl.where(inside, _relu(v * factor + offset), 0.0)  # the padding is of what is activated
            for u in tl.static_range(TW):
                if q - u * S >= 0 and q - u * S < K:
                    sums = _add(sums, u, a * w[q - u * S])
    in_map = (row < rows)[:, None] & is_channel[None, :]
    line = out + _offsets(row * OW + ox, C, c)
    for u in tl.static_range(TW):
        _write(line, u * C, sums[u], in_map & (ox + u < OW)[:, None])


@triton.jit(do_not_specialize=_SIZES)
def depthwise(
    x, scale, shift, w0, w1, w2, out, width0, width1, width2, rows, H, W, OH, OW,
    K0: tl.constexpr, K1: tl.constexpr, K2: tl.constexpr, S: tl.constexpr,
    BC: tl.constexpr, LANES: tl.constexpr, TW: tl.constexpr,
):  # fmt: skip
    """Write the mixed depthwise of relu(x * scale + shift); a program has one tile of one block of channels."""
    blocks = _num_blocks(width0, width1, width2, BC)
    tile, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    C = width0 + width1 + width2
    widths, weights = (width0, width1, width2), (w0, w1, w2)
    first = 0
    for slot in tl.static_range(3):
        last = first + widths[slot]
        if (block >= 0) & (first + block * BC < last):
            _convolve_slice(
                x, scale, shift, weights[slot], out, tile, block, first, last, C, rows, H, W, OH, OW,
                (K0, K1, K2)[slot], S, BC, LANES, TW,
            )  # fmt: skip
        block -= tl.cdiv(widths[slot], BC)
        first = last


@triton.jit
def _weights_slice(
    x, scale, shift, gd, place, chunk, block, first, last, C, rows, H, W, OH, OW, steps,
    K: tl.constexpr, PARTS: tl.constexpr, S: tl.constexpr, BC: tl.constexpr, LANES: tl.constexpr, TW: tl.constexpr,
):  # fmt: skip
    KERNEL_ROWS: tl.constexpr = (K + PARTS - 1) // PARTS
    first_ky = block % PARTS * KERNEL_ROWS
    c, is_channel = _channels(block // PARTS, first, last, BC)
    factor, offset = _vector(scale, c, is_channel), _vector(shift, c, is_channel)
    sums = _zeros(KERNEL_ROWS * K, LANES, BC)
    for step in range(steps):
        row, ox = _runs(chunk * steps + step, rows, LANES, TW)
        n, oy = row // OH, row % OH
        in_map = (row < rows)[:, None] & is_channel[None, :]
        line = gd + _offsets(row * OW + ox, C, c)
        run = ()
        for u in tl.static_range(TW):
            run = run + (_read(line, u * C, in_map & (ox + u < OW)[:, None]),)
        start = ox * S - K // 2
        for part_ky in tl.static_range(KERNEL_ROWS):
            y = oy * S + first_ky + part_ky - K // 2
            # Rows beyond the kernel are read too; what they would give is not stored.
            reads = in_map & ((y >= 0) & (y < H))[:, None]
            line = x + _offsets((n * H + y) * W + start, C, c)
            for q in tl.static_range((TW - 1) * S + K):
                inside = _inside(reads, start, W, q, K // 2)
                a = tl.where(inside, _relu(_read(line, q * C, inside) * factor + offset), 0.0)
                for u in tl.static_range(TW):
                    if q - u * S >= 0 and q - u * S < K:
                        sums = _add(sums, part_ky * K + q - u * S, a * run[u])
    for tap in tl.static_range(KERNEL_ROWS * K):
        is_tap = is_channel & (c * 0 + first_ky * K + tap < K * K)
        tl.store(place + (c - first) * (K * K) + first_ky * K + tap, tl.sum(sums[tap], axis=0), mask=is_tap)


@triton.jit(do_not_specialize=_SIZES)
def depthwise_weights(
    x, scale, shift, gd, partial, width0, width1, width2, taps, rows, H, W, OH, OW, steps,
    K0: tl.constexpr, K1: tl.constexpr, K2: tl.constexpr, S: tl.constexpr, KERNEL_ROWS: tl.constexpr,
    BC: tl.constexpr, LANES: tl.constexpr, TW: tl.constexpr,
):  # fmt: skip
    """Write the gradient of the weights from gd, that of the output; a row of `partial` (chunks, taps) a chunk.

    A block of channels has a program for every KERNEL_ROWS rows of its kernels, as every tap takes a register.
    """
    P0: tl.constexpr = (K0 + KERNEL_ROWS - 1) // KERNEL_ROWS
    P1: tl.constexpr = (K1 + KERNEL_ROWS - 1) // KERNEL_ROWS
    P2: tl.constexpr = (K2 + KERNEL_ROWS - 1) // KERNEL_ROWS
    blocks = tl.cdiv(width0, BC) * P0 + tl.cdiv(width1, BC) * P1 + tl.cdiv(width2, BC) * P2
    chunk, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    C = width0 + width1 + width2
    widths = (width0, width1, width2)
    first = 0
    place = partial + chunk.to(tl.int64) * taps
    for slot in tl.static_range(3):
        last = first + widths[slot]
        slot_blocks = tl.cdiv(widths[slot], BC) * (P0, P1, P2)[slot]
        if (block >= 0) & (block < slot_blocks):
            _weights_slice(
                x, scale, shift, gd, place, chunk, block, first, last, C, rows, H, W, OH, OW, steps,
                (K0, K1, K2)[slot], (P0, P1, P2)[slot], S, BC, LANES, TW,
            )  # fmt: skip
        block -= slot_blocks
        place += widths[slot] * ((K0, K1, K2)[slot] * (K0, K1, K2)[slot])
        first = last


@triton.jit
def _input_slice(
    x, scale, shift, mean, rstd, weight, gd, g, partial, chunk, block, first, last,
    C, rows, H, W, OH, OW, steps,
    K: tl.constexpr, S: tl.constexpr, BC: tl.constexpr, LANES: tl.constexpr, TW: tl.constexpr,
):  # fmt: skip
    c, is_channel = _channels(block, first, last, BC)
    factor, offset = _vector(scale, c, is_channel), _vector(shift, c, is_channel)
    centre, inverse = _vector(mean, c, is_channel), _vector(rstd, c, is_channel)
    height = tl.cdiv(H, S)
    sum_g, sum_gx = tl.zeros((LANES, BC), tl.float32), tl.zeros((LANES, BC), tl.float32)
    for step in range(steps):
        # All rows of a tile leave the same remainder by S: the same rows of the kernel reach them.
        tile = chunk * steps + step
        row, left = _runs(tile // S, rows, LANES, TW)
        n, y = row // height, row % height * S + tile % S
        in_map = ((row < rows) & (y < H))[:, None] & is_channel[None, :]
        start = left // S - K // 2 // S
        sums = _zeros(TW, LANES, BC)
        for ky in range((tile % S + K // 2) % S, K, S):
            oy = (y + K // 2 - ky) // S
            reads = in_map & ((y + K // 2 >= ky) & (oy < OH))[:, None]
            line = gd + _offsets((n * OH + oy) * OW + start, C, c)
            w = _weight_row(weight, c - first, is_channel, ky, K)
            for q in tl.static_range((TW - 1 + K // 2) // S + K // 2 // S + 1):
                v = _read(line, q * C, _inside(reads, start, OW, q, K // 2 // S))
                for kx in tl.static_range(K):
                    if (q - K // 2 // S) * S + kx - K // 2 >= 0 and (q - K // 2 // S) * S + kx - K // 2 < TW:
                        sums = _add(sums, (q - K // 2 // S) * S + kx - K // 2, v * w[kx])
        place = _offsets((n * H + y) * W + left, C, c)
        for u in tl.static_range(TW):
            mask = in_map & (left + u < W)[:, None]
            v = _read(x + place, u * C, mask)
            value = tl.where(mask, tl.where(v * factor + offset <= 0, 0.0, sums[u]), 0.0)
            _write(g + place, u * C, value, mask)
            sum_g += value
            sum_gx += value * ((v - centre) * inverse)
    _store_sums(partial, chunk, C, c, is_channel, sum_g, sum_gx)


@triton.jit(do_not_specialize=_SIZES)
def depthwise_input(
    x, scale, shift, mean, rstd, w0, w1, w2, gd, g, partial, width0, width1, width2, rows, H, W, OH, OW, steps,
    K0: tl.constexpr, K1: tl.constexpr, K2: tl.constexpr, S: tl.constexpr,
    BC: tl.constexpr, LANES: tl.constexpr, TW: tl.constexpr,
):  # fmt: skip
    """Write the gradient g of x * scale + shift, and its two sums, a row of `partial` (chunks, 2, C) a chunk."""
    blocks = _num_blocks(width0, width1, width2, BC)
    chunk, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    C = width0 + width1 + width2
    widths, weights = (width0, width1, width2), (w0, w1, w2)
    first = 0
    for slot in tl.static_range(3):
        last = first + widths[slot]
        if (block >= 0) & (first + block * BC < last):
            _input_slice(
                x, scale, shift, mean, rstd, weights[slot], gd, g, partial, chunk, block, first, last,
                C, rows, H, W, OH, OW, steps, (K0, K1, K2)[slot], S, BC, LANES, TW,
            )  # fmt: skip
        block -= tl.cdiv(widths[slot], BC)
        first = last


@triton.jit
def _pixels(tile, pixels, C, c, is_channel, BP: tl.constexpr):
    """Return offsets and mask (BP, BC) of a tile of BP pixels."""
    lane = tl.arange(0, BP)
    offsets = tile.to(tl.int64) * BP * C + (lane[:, None] * C + c[None, :])
    return offsets, (tile * BP + lane < pixels)[:, None] & is_channel[None, :]


@triton.jit(do_not_specialize=_SIZES)
def activate(x, scale, shift, out, pixels, C, ALIGN: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr):
    """Write relu(x * scale + shift); a program has BP pixels."""
    C = C // ALIGN * ALIGN
    tile, block = tl.program_id(0) // tl.cdiv(C, BC), tl.program_id(0) % tl.cdiv(C, BC)
    c, is_channel = _channels(block, 0, C, BC)
    offsets, mask = _pixels(tile, pixels, C, c, is_channel, BP)
    before = _read(x, offsets, mask) * _vector(scale, c, is_channel) + _vector(shift, c, is_channel)
    _write(out, offsets, _relu(before), mask)


@triton.jit(do_not_specialize=_SIZES)
def activate_backward(
    x, gradient, scale, shift, mean, rstd, out, partial, pixels, C, steps,
    ALIGN: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Write relu(x * scale + shift), and two sums of its masked gradient, a row of `partial` (chunks, 2, C) a chunk."""
    C = C // ALIGN * ALIGN
    chunk, block = tl.program_id(0) // tl.cdiv(C, BC), tl.program_id(0) % tl.cdiv(C, BC)
    c, is_channel = _channels(block, 0, C, BC)
    factor, offset = _vector(scale, c, is_channel), _vector(shift, c, is_channel)
    centre, inverse = _vector(mean, c, is_channel), _vector(rstd, c, is_channel)
    sum_g, sum_gx = tl.zeros((BP, BC), tl.float32), tl.zeros((BP, BC), tl.float32)
    for step in range(steps):
        offsets, mask = _pixels(chunk * steps + step, pixels, C, c, is_channel, BP)
        v = _read(x, offsets, mask)
        before = v * factor + offset
        _write(out, offsets, _relu(before), mask)
        g = tl.where(before <= 0, 0.0, _read(gradient, offsets, mask))
        sum_g += g
        sum_gx += g * ((v - centre) * inverse)
    _store_sums(partial, chunk, C, c, is_channel, sum_g, sum_gx)


@triton.jit(do_not_specialize=_SIZES)
def norm_backward(
    gradient, x, scale, shift, c1, c0, out, pixels, C,
    MASKED: tl.constexpr, ALIGN: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Write scale * gradient + c1 * x + c0; if MASKED, gradient is that of relu(x * scale + shift)."""
    C = C // ALIGN * ALIGN
    tile, block = tl.program_id(0) // tl.cdiv(C, BC), tl.program_id(0) % tl.cdiv(C, BC)
    c, is_channel = _channels(block, 0, C, BC)
    factor, offset = _vector(scale, c, is_channel), _vector(shift, c, is_channel)
    offsets, mask = _pixels(tile, pixels, C, c, is_channel, BP)
    v, g = _read(x, offsets, mask), _read(gradient, offsets, mask)
    if MASKED:
        g = tl.where(v * factor + offset <= 0, 0.0, g)
    value = g * factor + v * _vector(c1, c, is_channel) + _vector(c0, c, is_channel)
    _write(out, offsets, value, mask)


@triton.jit
def _store_moments(place, mean, squares, count, divisor, C, is_channel):
    """Store one mean and sum of squares / divisor for all lanes, (lanes, BC), of count (lanes, 1) values each."""
    whole = tl.sum(mean * count, axis=0) / tl.sum(count, axis=0)
    away = mean - whole[None, :]
    tl.store(place, whole, mask=is_channel)
    tl.store(place + C, tl.sum(squares + away * away * count, axis=0) / divisor, mask=is_channel)


@triton.jit(do_not_specialize=_SIZES)
def moments(x, partial, pixels, C, steps, ALIGN: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr):
    """Write mean and sum of squares around it, a row of `partial` (chunks, 2, C) a chunk of steps * BP pixels.

    Every lane goes on from its last mean (Welford); a sum of squares less the square of a sum would cancel.
    """
    C = C // ALIGN * ALIGN
    chunk, block = tl.program_id(0) // tl.cdiv(C, BC), tl.program_id(0) % tl.cdiv(C, BC)
    c, is_channel = _channels(block, 0, C, BC)
    mean, squares = tl.zeros((BP, BC), tl.float32), tl.zeros((BP, BC), tl.float32)
    for step in range(steps):
        offsets, mask = _pixels(chunk * steps + step, pixels, C, c, is_channel, BP)
        v = _read(x, offsets, mask)
        away = v - mean
        mean += tl.where(mask, away / (step + 1), 0.0)
        squares += tl.where(mask, away * (v - mean), 0.0)
    beyond = pixels - chunk * steps * BP - tl.arange(0, BP)
    count = tl.minimum(tl.maximum(beyond + BP - 1, 0) // BP, steps).to(tl.float32)[:, None]
    _store_moments(partial + chunk * (2 * C) + c, mean, squares, count, 1.0, C, is_channel)


@triton.jit(do_not_specialize=_SIZES)
def merge_moments(partial, out, pixels, C, steps, chunks, BC: tl.constexpr, BP: tl.constexpr):
    """Write mean and biased variance (2, C) from the rows of `moments`; a lane takes every BP-th chunk."""
    c, is_channel = _channels(tl.program_id(0), 0, C, BC)
    mean, squares = tl.zeros((BP, BC), tl.float32), tl.zeros((BP, BC), tl.float32)
    count = tl.zeros((BP, 1), tl.float32)
    size = steps * BP  # pixels of a chunk
    for step in range(tl.cdiv(chunks, BP)):
        chunk = step * BP + tl.arange(0, BP)
        mask = (chunk < chunks)[:, None] & is_channel[None, :]
        offsets = _offsets(chunk, 2 * C, c)
        added = tl.minimum(tl.maximum(pixels - chunk * size, 0), size).to(tl.float32)
        added = tl.where(chunk < chunks, added, 0.0)[:, None]
        share = added / tl.maximum(count + added, 1.0)
        away = _read(partial, offsets, mask) - mean
        mean += away * share
        squares += _read(partial + C, offsets, mask) + away * away * count * share
        count += added
    _store_moments(out + c, mean, squares, count, pixels.to(tl.float32), C, is_channel)
