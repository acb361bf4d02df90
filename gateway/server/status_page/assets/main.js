// Brings the parts of the page together.

import { Charts } from "./charts.js";
import { Detail } from "./detail.js";
import { setAttribute, setText } from "./dom.js";
import { explain } from "./explanation.js";
import { serviceLink } from "./format.js";
import { Live } from "./live.js";
import { Requests } from "./requests.js";
import { Servers } from "./servers.js";
import { Services } from "./services.js";
import { Tiles } from "./tiles.js";
import { Verdict } from "./verdict.js";

const detail = new Detail();
const showRequest = (id) => detail.openLater(`#request/${encodeURIComponent(id)}`, explain(id, (server) => servers.show(server)));
const charts = new Charts({
  list: (service, order) => {
    requests.find(service, order);
    document.getElementById("requests").scrollIntoView({ block: "start" });
  },
});
const servers = new Servers({ open: (title, hash, shown) => detail.open(title, hash, shown) });
const showService = (pool, service) => {
  history.replaceState(null, "", serviceLink(pool, service));
  charts.choose(pool, service);
  requests.find(service);
};
const parts = [
  new Verdict(),
  new Tiles(),
  charts,
  new Services({ choose: showService }),
  servers,
];
const requests = new Requests({ show: showRequest });
const connection = document.getElementById("connection");
const version = document.getElementById("version");

/** A part of the address as it was meant; one that is not encoded well stands for itself. */
const decoded = (part) => {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
};

/** What the address names: a request, a server, a service, or a section of the page. */
const followLink = () => {
  const [kind, ...names] = location.hash.slice(1).split("/").map(decoded);
  if (kind === "request") showRequest(names.join("/"));
  else if (kind === "server") servers.show(names.join("/")); // an address has slashes of its own
  else if (kind === "service") showService(names[0], names[1]);
  else document.getElementById(kind)?.scrollIntoView();
};
let known = false;

const live = new Live({
  changed: ({ state, points }) => {
    if (document.hidden) return;
    for (const part of parts) part.update(state, points);
    if (!known) {
      known = true;
      followLink();
    }
    setText(version, `Version ${state.version}.`);
    requests.update();
  },
  connection: (tone, words) => {
    setAttribute(connection, "data-tone", tone);
    setText(connection, words);
  },
});

addEventListener("hashchange", followLink);
live.start();
requests.update();
