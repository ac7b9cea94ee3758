// Shows the value of a slider beside its name.
"use strict";
for (const slider of document.querySelectorAll("#rules input[type=range]")) {
  const shown = slider.closest("label").querySelector("output");
  slider.addEventListener("input", () => { shown.value = slider.value; });
}
