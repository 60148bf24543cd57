// The OpenAPI description as a page to read.
"use strict";

function h(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function kind(schema) {
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.anyOf) return schema.anyOf.map(kind).join(" | ");
  if (schema.type === "array") return `list of ${kind(schema.items ?? {})}`;
  return schema.type ?? "any";
}

function fields(form) {
  const rows = Object.entries(form.properties ?? {}).map(([name, schema]) => h("tr", {},
    h("td", {}, h("code", {}, name), form.required?.includes(name) ? " (needed)" : ""),
    h("td", {}, kind(schema)),
    h("td", {}, (schema.description ?? "").replaceAll("``", ""))));
  const head = h("tr", {}, ...["field", "kind", "what it is"].map((text) => h("th", { scope: "col" }, text)));
  return h("div", { className: "scroll", tabIndex: 0 }, h("table", {}, h("thead", {}, head), h("tbody", {}, ...rows)));
}

function token() {
  try { return sessionStorage.getItem("antiphon.token"); } catch { return null; }
}

async function start() {
  const headers = token() ? { Authorization: `Bearer ${token()}` } : {};
  const answer = await fetch("openapi.json", { headers });
  if (!answer.ok) {
    const where = h("a", { href: "./" }, "the page");
    document.getElementById("paths").append(h("p", {}, "This server wants its token first: enter it on ", where, ", and come back in the same tab."));
    return;
  }
  const description = await answer.json();
  const forms = description.components.schemas;
  const place = document.getElementById("paths");
  const of = (content) => forms[content?.["application/json"]?.schema?.$ref?.split("/").at(-1)];
  for (const [path, methods] of Object.entries(description.paths)) {
    for (const [method, told] of Object.entries(methods)) {
      place.append(h("h2", {}, h("code", {}, `${method.toUpperCase()} ${path}`)), h("p", {}, told.description ?? ""));
      const asked = of(told.requestBody?.content);
      const answered = of((told.responses["200"] ?? {}).content);
      if (asked) place.append(h("h3", {}, "asked"), fields(asked));
      if (answered) place.append(h("h3", {}, "answered"), fields(answered));
    }
  }
}

start();
