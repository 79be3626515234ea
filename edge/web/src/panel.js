// The controls beside the cloud: what they show, in words.

import { RAMP_CSS, ofGroup } from "./colours.js";
import { softmax } from "./features.js";
import { encodedTokens } from "./model_file.js";

export const $ = (id) => document.getElementById(id);

export function say(sentence, wrong = false) {
  $("status").textContent = sentence;
  $("status").classList.toggle("wrong", wrong);
}

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** Fills a select with groups of names; the values are positions in all of them. */
export function fillClouds(groups, chosen) {
  let value = 0;
  $("clouds").replaceChildren(
    ...groups
      .filter(({ names }) => names.length > 0)
      .map(({ label, names }) => {
        const group = element("optgroup", "", { label });
        group.append(...names.map((name) => element("option", name, { value: value++ })));
        return group;
      }),
  );
  $("clouds").value = chosen;
}

export function showModels(models, chosen) {
  $("budget").hidden = models.length < 2;
  $("slider").max = models.length - 1;
  $("slider").value = chosen;
  showModel(models, chosen);
}

/** Describes the chosen one of the open models. */
export function showModel(models, chosen) {
  const { name, about, size } = models[chosen];
  const tokens = String(encodedTokens(about));
  $("model").textContent = $("model").title = name;
  const facts = [
    about.kind,
    `${tokens} of ${about.groups} tokens encoded`,
    about.precision,
    `${(size / 2 ** 20).toFixed(1)} MB`,
  ];
  $("about").textContent =
    facts.join(" · ") + (about.licence ? ` · licence: ${about.licence}` : "");
  $("tokens").textContent = `${tokens} of ${about.groups}`;
  $("slider").setAttribute("aria-valuetext", `${tokens} tokens`);
  const categories = about.inputs.includes("categories") ? about.categories : [];
  $("category").hidden = categories.length === 0;
  if ($("categories").length !== categories.length) {
    $("categories").replaceChildren(
      ...categories.map((label, value) => element("option", label, { value })),
    );
  }
  $("groups").textContent = groupWord(about);
  const features = document.querySelector('[name="mode"][value="features"]');
  features.disabled = !about.outputs.includes("features");
  if (features.disabled && features.checked) {
    document.querySelector('[name="mode"][value="groups"]').checked = true;
  }
}

export function groupWord(about) {
  if (!about.outputs.includes("features")) return "Parts";
  return about.outputs.includes("assignment") ? "Supertokens" : "Tokens";
}

export function showResult({ about, outputs, points, total, read, times, place }) {
  const shown = points.length / 3;
  const counts = [`${total.toLocaleString("en")} points`];
  if (read < total) counts.push(`the model reads ${read.toLocaleString("en")}`);
  if (shown < total) counts.push(`${shown.toLocaleString("en")} are shown`);
  $("counts").textContent = counts.join(", ");
  $("times").textContent =
    `${times.network.toFixed(1)} ms network, ${times.preparation.toFixed(1)} ms preparation`;
  $("place").textContent = place;
  $("save").disabled = false;
  $("save").textContent = about.outputs.includes("features") ? "Save features" : "Save parts";
  showClasses(about, outputs.logits);
}

function showClasses(about, logits) {
  $("classes").hidden = !about.classes || !logits;
  if ($("classes").hidden) return;
  const ranked = softmax(logits)
    .map((share, i) => ({ share, name: about.classes[i] }))
    .sort((a, b) => b.share - a.share)
    .slice(0, 5);
  $("bars").replaceChildren(
    ...ranked.map(({ share, name }) => {
      const item = element("li", "");
      item.append(
        element("span", name),
        element("span", `${(100 * share).toFixed(1)} %`),
        bar(share),
      );
      return item;
    }),
  );
}

function bar(share) {
  const made = element("i", "");
  made.style.width = `${100 * share}%`;
  return made;
}

const EXPLAIN = {
  features: "Main directions of the features as red, green and blue: alike features, alike colours.",
  Supertokens: "Points of one colour are encoded by one supertoken; grey tokens are kept whole.",
  Tokens: "Every point has the colour of its nearest token.",
  Parts: "The part that the model predicts for every point.",
  similarity: "Cosine similarity of every point’s features to those of the ringed point.",
};

export function explain(mode, about, picked) {
  if (mode === "similarity" && picked === null) return "Click a point to compare all others with it.";
  return EXPLAIN[mode === "groups" ? groupWord(about) : mode];
}

/** The key to the colours: a ramp between two numbers, or one name per group. */
export function showLegend({ range = null, groups = null }) {
  const parts = [];
  if (range) {
    const ramp = element("span", "", { class: "ramp" });
    ramp.style.background = `linear-gradient(90deg, ${RAMP_CSS.join(", ")})`;
    parts.push(element("span", range[0].toFixed(2)), ramp, element("span", range[1].toFixed(2)));
  }
  for (const { group, name } of groups ?? []) {
    const entry = element("span", name);
    const dot = element("i", "");
    dot.style.background = `rgb(${ofGroup(group).map((v) => 255 * v).join(" ")})`;
    entry.prepend(dot);
    parts.push(entry);
  }
  $("legend").replaceChildren(...parts);
  $("legend").hidden = parts.length === 0;
}
