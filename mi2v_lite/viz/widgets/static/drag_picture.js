// How a picture gets into DragCanvas: chosen as a file, or dropped. It stands between drag_link.js and drag_things.js in
// one module.

const LARGEST_FILE = 6e6; // bytes: Jupyter closes the connection on messages of more than 10 MB
const LARGEST_SIDE = 4096; // pixels, of a picture that is made smaller for this

/** The bytes of a picture's file; one that is too large for a message comes as a smaller JPEG. */
async function pictureBytes(file) {
  if (file.size <= LARGEST_FILE) return file.arrayBuffer();
  const bitmap = await createImageBitmap(file);
  const scale = Math.min(1, LARGEST_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = make("canvas", { width: Math.round(bitmap.width * scale), height: Math.round(bitmap.height * scale) });
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92));
  return blob.arrayBuffer();
}

/** A button that opens a picture; `stage` takes dropped ones. `take(name, bytes)` gets them, `fail(text)` complaints. */
function pictureChooser(stage, take, fail) {
  const input = make("input", { type: "file", accept: "image/*", hidden: true });
  const open = async (file) => {
    if (!file) return;
    try {
      take(file.name, await pictureBytes(file));
    } catch {
      fail(`${file.name} cannot be read as a picture; choose a JPEG or a PNG.`);
    }
  };
  input.onchange = () => {
    open(input.files[0]);
    input.value = ""; // the same file can be chosen again
  };
  const over = (is) => (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    event.stopPropagation(); // or JupyterLab would take the file
    stage.classList.toggle("mi2v-over", is);
  };
  stage.addEventListener("dragenter", over(true));
  stage.addEventListener("dragover", over(true));
  stage.addEventListener("dragleave", over(false));
  stage.addEventListener("drop", (event) => {
    over(false)(event);
    open(event.dataTransfer?.files[0]);
  });
  const title = "a picture of your own; you can also drop one on the photo";
  const button = make("button", { textContent: "Open a photo", title, type: "button", onclick: () => input.click() });
  return make("span", {}, button, input);
}
