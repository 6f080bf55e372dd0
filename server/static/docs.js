// Starts the vendored viewer on this coordinator's own description; no validator, no other host.
const dark = matchMedia("(prefers-color-scheme: dark)").matches;
document.documentElement.classList.toggle("dark-mode", dark); // the viewer's own name for it
const place = document.getElementById("swagger-ui");
SwaggerUIBundle({ url: place.dataset.openapi, domNode: place, deepLinking: true, validatorUrl: null, docExpansion: "list" });
