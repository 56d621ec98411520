// Shows the hub's own description; what is tried out goes to the hub that served this page.
window.ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  presets: [SwaggerUIBundle.presets.apis],
  layout: "BaseLayout",
  deepLinking: true,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  // No other host is asked whether the description is valid, and no key outlives the page.
  validatorUrl: null,
  persistAuthorization: false,
});
