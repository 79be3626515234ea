// Drives the built page in Chromium and prints what it found as one line of JSON.
//
//     node test/browser.js CHROMIUM PAGE_ADDRESS CLOUD CLASSIFIER SEGMENTER PICTURES
//
// The page is served with two budgets of one student, and a cloud; the files named here are dropped
// on it. Pictures are written into the folder PICTURES.

import { mkdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { chromium } from "playwright-core";

const [executablePath, address, cloud, model, segmenter, pictures] = process.argv.slice(2);
const WAIT = { timeout: 60_000, polling: 100 };
mkdirSync(pictures, { recursive: true });

const browser = await chromium.launch({
  executablePath,
  args: ["--no-sandbox", "--enable-unsafe-swiftshader", "--use-angle=swiftshader"],
});
const problems = [];

async function open(options, query = "") {
  const page = await browser.newPage(options);
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
  page.on("request", (request) => {
    const own = [address, "blob:", "data:"].some((start) => request.url().startsWith(start));
    if (!own) problems.push(`asked for ${request.url()}`);
  });
  await page.goto(address + query);
  return page;
}

/** Waits until the status line has a text; says what it has instead after a long time. */
async function status(page, part) {
  const reads = (text) => document.getElementById("status").textContent.includes(text);
  await page.waitForFunction(reads, part, WAIT).catch(async () => {
    throw new Error(`expected "${part}" in the status, got "${await page.textContent("#status")}"`);
  });
}

async function drop(page, path) {
  const content = readFileSync(path).toString("base64");
  await page.evaluate(
    ({ content, name }) => {
      const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(new File([bytes], name));
      document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true }));
    },
    { content, name: basename(path) },
  );
}

async function saved(page) {
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("#save")]);
  return JSON.parse(readFileSync(await download.path(), "utf8"));
}

const shot = (page, name) => page.screenshot({ path: join(pictures, `${name}.png`) });
const text = (page, selector) => page.textContent(selector);
const found = {};

const page = await open({ viewport: { width: 1200, height: 800 }, colorScheme: "light" }, "?threads=2&device=cpu");
await status(page, "was encoded");
found.isolated = await page.evaluate(() => self.crossOriginIsolated);
await shot(page, "light-features");

await drop(page, cloud);
await status(page, `${basename(cloud)} was encoded`);
found.dropped = await saved(page);

await page.click('label:has([value="groups"])');
await shot(page, "light-groups");
found.legend = await text(page, "#legend");

await page.mouse.click(440, 400);
found.mode = await page.evaluate(() => document.querySelector('[name="mode"]:checked').value);
await shot(page, "light-similarity");

await page.focus("#canvas");
for (const key of ["ArrowLeft", "ArrowUp", "+", "Enter"]) await page.keyboard.press(key);
await shot(page, "light-keyboard");
found.explained = await text(page, "#explain");

await page.focus("#slider");
await page.keyboard.press("ArrowLeft");
await page.waitForFunction(() => document.getElementById("model").title.endsWith("-4.onnx"), null, WAIT);
await status(page, "-4.onnx.");
found.slid = await saved(page);
found.times = await text(page, "#times");
found.place = await text(page, "#place");

await drop(page, model);
await status(page, `encoded by ${basename(model)}`);
found.headed = await saved(page);
found.bars = await page.$$eval("#bars li", (items) => items.map((item) => item.textContent));
await shot(page, "light-class");

await drop(page, segmenter);
await status(page, `encoded by ${basename(segmenter)}`);
found.parts = await saved(page);
found.featuresOff = await page.isDisabled('[value="features"]');
await page.click('label:has([value="groups"])');
found.partNames = await text(page, "#legend");
await shot(page, "light-parts");

found.wrong = [];
for (const [name, content] of [["bad.ply", "no"], ["nan.xyz", "nan nan nan\n".repeat(99)], ["few.xyz", "0 0 1\n0 1 0\n"]]) {
  await page.setInputFiles("#cloud-file", { name, mimeType: "x/y", buffer: Buffer.from(content) });
  await status(page, name);
  found.wrong.push(await text(page, "#status"));
}

await page.close();
const dark = await open({ viewport: { width: 1200, height: 800 }, colorScheme: "dark" });
await status(dark, "was encoded");
await dark.selectOption("#clouds", { label: "airplane.ply" });
await status(dark, "airplane.ply was encoded");
await shot(dark, "dark-features");
await dark.click('label:has([value="groups"])');
await dark.mouse.click(440, 400);
await shot(dark, "dark-similarity");

await dark.close();
const phone = await open({
  viewport: { width: 375, height: 720 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true,
  colorScheme: "light",
});
await status(phone, "was encoded");
await phone.tap("canvas");
await shot(phone, "phone");
found.phoneWidth = await phone.evaluate(() => document.documentElement.scrollWidth);
await phone.screenshot({ path: join(pictures, "phone-whole.png"), fullPage: true });

found.problems = problems;
await browser.close();
console.log(JSON.stringify(found));
