// Runs a decoder that is a chain of plain layers: the same rules as `Unrolled` in Python, one item at
// a time, in doubles. Nothing here knows the page, so that it can be tested anywhere.
const decoders = (() => {
  "use strict";

  // 2 / sqrt(pi) exp(-x²) Σ 2ⁿ x²ⁿ⁺¹ / (1·3·…·(2n+1)): all terms have one sign, so none cancels.
  function erf(x) {
    const size = Math.abs(x);
    if (size > 6) return Math.sign(x);
    let [term, sum] = [size, size];
    for (let n = 1; term > 1e-17 * sum; n += 1) {
      term *= (2 * size * size) / (2 * n + 1);
      sum += term;
    }
    return Math.sign(x) * (2 / Math.sqrt(Math.PI)) * Math.exp(-size * size) * sum;
  }

  const sigmoid = (x) => 1 / (1 + Math.exp(-x));
  const curve = Math.sqrt(2 / Math.PI);
  const activations = {
    relu: () => (x) => Math.max(0, x),
    leaky_relu: ({ slope }) => (x) => (x > 0 ? x : slope * x),
    elu: ({ alpha }) => (x) => (x > 0 ? x : alpha * Math.expm1(x)),
    gelu: ({ tanh }) =>
      tanh
        ? (x) => 0.5 * x * (1 + Math.tanh(curve * (x + 0.044715 * x ** 3)))
        : (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
    silu: () => (x) => x * sigmoid(x),
    tanh: () => Math.tanh,
    sigmoid: () => sigmoid,
  };

  const product = (sizes) => sizes.reduce((a, b) => a * b, 1);

  function linear({ weight, bias }, h, out) {
    for (let o = 0, at = 0; o < out.length; o += 1) {
      let sum = bias ? bias[o] : 0;
      for (let i = 0; i < h.length; i += 1, at += 1) sum += weight[at] * h[i];
      out[o] = sum;
    }
  }

  // Every value is spread over the kernel's reach, in up to three axes; fewer are led by axes of length 1.
  function transposed({ weight, bias }, h, out, layer) {
    const three = (sizes, missing) => [...Array(3 - sizes.length).fill(missing), ...sizes];
    const [channels, made] = [layer.takes[0], layer.shape[0]];
    const [inZ, inY, inX] = three(layer.takes.slice(1), 1);
    const [outZ, outY, outX] = three(layer.shape.slice(1), 1);
    const [kZ, kY, kX] = three(layer.kernel, 1);
    const [sZ, sY, sX] = three(layer.options.stride, 1);
    const [pZ, pY, pX] = three(layer.options.padding, 0);
    const [map, target] = [inZ * inY * inX, outZ * outY * outX];
    for (let o = 0; o < made; o += 1) out.fill(bias ? bias[o] : 0, o * target, (o + 1) * target);
    for (let c = 0, at = 0; c < channels; c += 1)
      for (let o = 0; o < made; o += 1)
        for (let z = 0; z < kZ; z += 1)
          for (let y = 0; y < kY; y += 1)
            for (let x = 0; x < kX; x += 1, at += 1) {
              const w = weight[at];
              for (let i = 0; i < inZ; i += 1) {
                const toZ = i * sZ - pZ + z;
                if (toZ < 0 || toZ >= outZ) continue;
                for (let j = 0; j < inY; j += 1) {
                  const toY = j * sY - pY + y;
                  if (toY < 0 || toY >= outY) continue;
                  const from = c * map + (i * inY + j) * inX;
                  const to = o * target + (toZ * outY + toY) * outX;
                  for (let k = 0, toX = x - pX; k < inX; k += 1, toX += sX)
                    if (toX >= 0 && toX < outX) out[to + toX] += w * h[from + k];
                }
              }
            }
  }

  function affine({ scale, shift }, h, out) {
    const run = h.length / scale.length;
    for (let c = 0, i = 0; c < scale.length; c += 1)
      for (let k = 0; k < run; k += 1, i += 1) out[i] = scale[c] * h[i] + shift[c];
  }

  function normalize(_, h, out, { options: { groups, eps } }) {
    const run = h.length / groups;
    for (let g = 0; g < groups; g += 1) {
      const part = h.subarray(g * run, (g + 1) * run);
      const mean = part.reduce((a, b) => a + b, 0) / run;
      const variance = part.reduce((a, b) => a + (b - mean) ** 2, 0) / run;
      const scale = 1 / Math.sqrt(variance + eps);
      for (let k = 0; k < run; k += 1) out[g * run + k] = (part[k] - mean) * scale;
    }
  }

  const weighted = { linear, transposed, affine, normalize };

  // Float32 numbers of base64, which are little-endian there whatever the machine is.
  function numbers(text) {
    const raw = atob(text);
    const view = new DataView(new ArrayBuffer(raw.length));
    for (let i = 0; i < raw.length; i += 1) view.setUint8(i, raw.charCodeAt(i));
    return Float32Array.from({ length: raw.length / 4 }, (_, i) => view.getFloat32(4 * i, true));
  }

  // A decoder as it stands in a page, its weights cut out of one blob in order.
  function unpack({ layers, output, weights }) {
    const blob = numbers(weights);
    let at = 0;
    const ready = layers.map(({ kind, takes, shape, options, tensors }) => {
      const cut = Object.fromEntries(
        Object.entries(tensors).map(([name, sizes]) => [name, blob.subarray(at, (at += product(sizes)))]),
      );
      return { kind, takes, shape, options, tensors: cut, kernel: tensors.weight?.slice(2) };
    });
    if (at !== blob.length) throw new Error(`${blob.length - at} weights are left over`);
    return { layers: ready, output };
  }

  // The mean of p(x|z), flattened, of a code that a condition may follow.
  function decode({ layers, output }, code) {
    let h = Float64Array.from(code);
    for (const layer of layers) {
      const out = new Float64Array(product(layer.shape));
      if (layer.kind in weighted) weighted[layer.kind](layer.tensors, h, out, layer);
      else {
        const f = activations[layer.kind](layer.options);
        for (let i = 0; i < out.length; i += 1) out[i] = f(h[i]);
      }
      h = out;
    }
    return output === "sigmoid" ? h.map(sigmoid) : h;
  }

  return { decode, erf, numbers, unpack };
})();
if (typeof module !== "undefined") module.exports = decoders;
