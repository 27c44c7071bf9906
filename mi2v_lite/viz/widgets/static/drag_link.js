// The way of DragCanvas's messages to the kernel. Every message carries a number, and the scene that answers it carries
// the same number. It stands between drag_controls.js and drag_picture.js in one module.

const SILENT = 2000; // milliseconds: the page says so when the kernel takes longer to answer

/** `changed` is called when the kernel falls silent, or speaks again. */
function connect(model, changed) {
  const view = Math.random().toString(36).slice(2);
  const link = { number: 0, answered: 0, silent: false, lost: false, send, attempt, hear, close };
  let [waiting, later, clock] = [0, null, 0];

  /** Sends a message and returns its number. `more.trial`: it shows an edit that is still under way. */
  function send(what, more = {}, buffers = []) {
    if (!more.trial) later = null;
    link.number += 1;
    if (more.trial) waiting = link.number;
    try {
      model.send({ do: what, view, number: link.number, ...more }, undefined, buffers);
    } catch {
      link.lost = true; // the kernel was restarted, and has forgotten this canvas
    }
    clock ||= setTimeout(() => {
      link.silent = true;
      changed();
    }, SILENT);
    changed();
    return link.number;
  }
  /** Only one trial is on its way at a time, and the newest waits. */
  function attempt(what, more) {
    if (waiting) later = [what, more];
    else send(what, { ...more, trial: true });
  }
  /** Takes note of an answer. */
  function hear([from, last] = []) {
    if (from !== view) return;
    link.answered = last;
    link.lost = false;
    if (last === link.number) close();
    if (last >= waiting) waiting = 0;
    if (!waiting && later) {
      const [what, more] = later;
      later = null;
      send(what, { ...more, trial: true });
    }
  }
  function close() {
    clearTimeout(clock);
    clock = 0;
    link.silent = false;
  }
  return link;
}
