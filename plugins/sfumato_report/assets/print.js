// What is folded away on a screen belongs on paper.
(() => {
  "use strict";
  const folded = [...document.querySelectorAll("details:not([open])")];
  addEventListener("beforeprint", () => folded.forEach((d) => d.setAttribute("open", "")));
  addEventListener("afterprint", () => folded.forEach((d) => d.removeAttribute("open")));
})();
