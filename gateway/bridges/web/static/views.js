// Which view is shown: the address says so (`#/devices`, `#/registers/SERIAL`), so that back, forward and links work.

const FIRST = "plants";

export class Views {
  #shown = "";
  #changed;

  // `changed(name, argument)` is called when another view is shown, or the same with another argument.
  constructor(changed) {
    this.#changed = changed;
    addEventListener("hashchange", () => this.#read(true));
  }

  start() {
    this.#read(false);
  }

  #read(byUser) {
    const [, name, argument = ""] = location.hash.split("/");
    // `#main` is the link that skips to the view; it leaves it as it is.
    const wanted = location.hash.startsWith("#/") ? name : this.#shown || FIRST;
    const sections = [...document.querySelectorAll("[data-view]")];
    const view = sections.find((each) => each.dataset.view === wanted) ?? sections[0];
    for (const each of sections) each.hidden = each !== view;
    for (const link of document.querySelectorAll("nav a")) {
      if (link.getAttribute("href") === `#/${view.dataset.view}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    const isAnother = this.#shown !== view.dataset.view;
    this.#shown = view.dataset.view;
    if (byUser && isAnother) view.querySelector("h2").focus({ preventScroll: true });
    this.#changed(this.#shown, decoded(argument));
  }
}

function decoded(words) {
  try {
    return decodeURIComponent(words);
  } catch {
    return "";
  }
}
