// Colours of points: arrays (N, 3) of sRGB values in [0, 1].

/** Three scores per point as red, green and blue, each stretched over its 2nd to 98th percentile. */
export function fromScores(scores) {
  const colours = new Float32Array(scores.length);
  for (let axis = 0; axis < 3; axis++) {
    const values = scores.filter((_, i) => i % 3 === axis).sort();
    const low = values[Math.floor(0.02 * (values.length - 1))];
    const high = values[Math.ceil(0.98 * (values.length - 1))];
    for (let i = axis; i < scores.length; i += 3) {
      const share = high > low ? (scores[i] - low) / (high - low) : 0.5;
      colours[i] = 0.25 + 0.72 * Math.min(1, Math.max(0, share));
    }
  }
  return colours;
}

const UNMERGED = [0.55, 0.57, 0.6];

/** One colour per group; grey for -1. Hues follow the golden angle, so neighbours differ. */
export function ofGroup(group) {
  if (group < 0) return UNMERGED;
  return hsl((group * 137.508 + 205) % 360, 0.62, group % 2 ? 0.62 : 0.5);
}

function hsl(hue, saturation, lightness) {
  const reach = saturation * Math.min(lightness, 1 - lightness);
  return [0, 8, 4].map((n) => {
    const k = (n + hue / 30) % 12;
    return lightness - reach * Math.max(-1, Math.min(k - 3, 9 - k, 1));
  });
}

export function fromGroups(groups) {
  const colours = new Float32Array(3 * groups.length);
  groups.forEach((group, i) => colours.set(ofGroup(group), 3 * i));
  return colours;
}

// Viridis at equal steps, light enough at its lower end for a dark page.
const RAMP = [
  [0.283, 0.141, 0.458], [0.254, 0.265, 0.53], [0.207, 0.372, 0.553], [0.164, 0.471, 0.558],
  [0.128, 0.567, 0.551], [0.135, 0.659, 0.518], [0.267, 0.749, 0.441], [0.478, 0.821, 0.318],
  [0.741, 0.873, 0.15], [0.993, 0.906, 0.144],
];

export const RAMP_CSS = RAMP.map((c) => `rgb(${c.map((v) => Math.round(255 * v)).join(" ")})`);

/** Values between low and high on a ramp from violet to yellow. */
export function fromValues(values, low, high) {
  const colours = new Float32Array(3 * values.length);
  const scale = high > low ? (RAMP.length - 1) / (high - low) : 0;
  values.forEach((value, i) => {
    const place = Math.min(RAMP.length - 1, Math.max(0, (value - low) * scale));
    const [a, b] = [RAMP[Math.floor(place)], RAMP[Math.ceil(place)]];
    const share = place - Math.floor(place);
    for (let axis = 0; axis < 3; axis++) {
      colours[3 * i + axis] = a[axis] + share * (b[axis] - a[axis]);
    }
  });
  return colours;
}
