// The page's end of the worker: requests as promises.

/** A worker as a function request(do, values, transfer) that returns a promise of its answer. */
export function connect(worker) {
  const waiting = new Map();
  let count = 0;
  worker.addEventListener("message", ({ data }) => {
    const { resolve, reject } = waiting.get(data.id);
    waiting.delete(data.id);
    if (data.error === undefined) resolve(data.answer);
    else reject(new Error(data.error));
  });
  worker.addEventListener("error", (event) => {
    for (const { reject } of waiting.values()) {
      reject(new Error(`the worker stopped: ${event.message ?? "it could not be loaded"}`));
    }
    waiting.clear();
  });
  return (action, values = {}, transfer = []) =>
    new Promise((resolve, reject) => {
      const id = count++;
      waiting.set(id, { resolve, reject });
      worker.postMessage({ ...values, id, do: action }, transfer);
    });
}
