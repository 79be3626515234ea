// Sampling and neighbours for models whose file holds only the network.
//
// Float32 arithmetic in the order of the Python package, so that the same points are chosen.

const round = Math.fround;

/** Squared distance of point i of one array and point j of another. */
export function squaredDistance(a, i, b, j) {
  const dx = round(a[3 * i] - b[3 * j]);
  const dy = round(a[3 * i + 1] - b[3 * j + 1]);
  const dz = round(a[3 * i + 2] - b[3 * j + 2]);
  return round(round(round(dx * dx) + round(dy * dy)) + round(dz * dz));
}

/** Indices of `count` farthest points, from point 0; ties go to the lowest index. */
export function farthestPoints(points, count) {
  const size = points.length / 3;
  const chosen = new Uint32Array(count);
  const nearest = new Float32Array(size).fill(Infinity);
  for (let i = 1; i < count; i++) {
    let best = 0;
    for (let p = 0; p < size; p++) {
      nearest[p] = Math.min(nearest[p], squaredDistance(points, p, points, chosen[i - 1]));
      if (nearest[p] > nearest[best]) best = p;
    }
    chosen[i] = best;
  }
  return chosen;
}

/** Rows of an array (n, 3) at indices. */
export function rows(points, indices) {
  const found = new Float32Array(3 * indices.length);
  indices.forEach((index, i) => found.set(points.subarray(3 * index, 3 * index + 3), 3 * i));
  return found;
}

/** Indices (M, k) of the k points nearest to each query, nearest first, ties to the lowest. */
export function nearestPoints(queries, points, k) {
  const [count, size] = [queries.length / 3, points.length / 3];
  const found = new Uint32Array(count * k);
  const distance = new Float64Array(k);
  for (let q = 0; q < count; q++) {
    const index = found.subarray(q * k, (q + 1) * k);
    distance.fill(Infinity);
    for (let p = 0; p < size; p++) {
      const d = squaredDistance(queries, q, points, p);
      if (d >= distance[k - 1]) continue;
      let place = k - 1;
      for (; place > 0 && distance[place - 1] > d; place--) {
        distance[place] = distance[place - 1];
        index[place] = index[place - 1];
      }
      distance[place] = d;
      index[place] = p;
    }
  }
  return found;
}

/** Centers (c, 3) and neighbourhoods (c, k, 3): neighbours minus their center, over the radius. */
export function groups(points, count, size, radius) {
  const centers = rows(points, farthestPoints(points, count));
  const neighborhoods = rows(points, nearestPoints(centers, points, size));
  for (let i = 0; i < neighborhoods.length; i++) {
    const center = centers[3 * Math.floor(i / (3 * size)) + (i % 3)];
    const offset = round(neighborhoods[i] - center);
    neighborhoods[i] = radius ? round(offset / radius) : offset;
  }
  return { centers, neighborhoods };
}
