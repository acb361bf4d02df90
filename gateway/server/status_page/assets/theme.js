// Chooses light or dark before the first paint; a classic script, so that nothing flashes.
(() => {
  const KEY = "llm-gateway-theme";
  const CHOICES = ["system", "light", "dark"];
  const root = document.documentElement;

  const stored = () => {
    try {
      return localStorage.getItem(KEY) ?? "system";
    } catch {
      return "system"; // storage may be forbidden
    }
  };

  const apply = (choice) => {
    if (choice === "system") delete root.dataset.theme;
    else root.dataset.theme = choice;
  };

  apply(stored());
  addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const label = (choice) => { button.textContent = `Theme: ${choice}`; };
    let choice = CHOICES.includes(stored()) ? stored() : "system";
    label(choice);
    button.addEventListener("click", () => {
      choice = CHOICES[(CHOICES.indexOf(choice) + 1) % CHOICES.length];
      try { localStorage.setItem(KEY, choice); } catch { /* for this visit only, then */ }
      apply(choice);
      label(choice);
      dispatchEvent(new Event("themechange"));
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      dispatchEvent(new Event("themechange"));
    });
  });
})();
