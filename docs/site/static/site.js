// What scrolls by itself can be reached with the keyboard.
addEventListener("load", () => {
  for (const item of document.querySelectorAll("article table, article pre")) {
    if (item.scrollWidth > item.clientWidth) item.tabIndex = 0;
  }
});
