// The dialog that shows one server or one request; the address bar names it, so it can be linked.

export class Detail {
  #opened = 0;

  constructor() {
    this.dialog = document.getElementById("detail");
    this.title = document.getElementById("detail-title");
    this.body = document.getElementById("detail-body");
    document.getElementById("detail-close").addEventListener("click", () => this.dialog.close());
    this.dialog.addEventListener("close", () => {
      if (/^#(request|server)\//.test(location.hash)) history.replaceState(null, "", location.pathname);
    });
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog) this.dialog.close(); // beside it
    });
  }

  /** Show `parts` under a title; `hash` is the link to it. */
  open(title, hash, parts) {
    this.#opened += 1;
    this.title.textContent = title;
    this.body.replaceChildren(...parts);
    history.replaceState(null, "", hash);
    if (!this.dialog.open) this.dialog.showModal();
    this.body.scrollTop = 0;
  }

  /** Show what a promise brings, unless something else was opened meanwhile. */
  async openLater(hash, promise) {
    const opened = ++this.#opened;
    const { title, parts } = await promise;
    if (opened === this.#opened) this.open(title, hash, parts);
  }
}
