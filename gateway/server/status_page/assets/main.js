// Brings the parts of the page together.

import { Charts } from "./charts.js";
import { Detail } from "./detail.js";
import { setAttribute, setText } from "./dom.js";
import { explain } from "./explanation.js";
import { Live } from "./live.js";
import { Requests } from "./requests.js";
import { Servers } from "./servers.js";
import { Services } from "./services.js";
import { Tiles } from "./tiles.js";
import { Verdict } from "./verdict.js";

const detail = new Detail();
const showRequest = (id) => detail.openLater(`#request/${encodeURIComponent(id)}`, explain(id));
const charts = new Charts();
const parts = [
  new Verdict(),
  new Tiles(),
  charts,
  new Services({ choose: (pool, service) => charts.choose(pool, service) }),
  new Servers({ open: (title, hash, shown) => detail.open(title, hash, shown) }),
];
const requests = new Requests({ show: showRequest });
const connection = document.getElementById("connection");
const version = document.getElementById("version");

const live = new Live({
  changed: ({ state, points }) => {
    if (document.hidden) return;
    for (const part of parts) part.update(state, points);
    setText(version, `Version ${state.version}.`);
    requests.update();
  },
  connection: (tone, words) => {
    setAttribute(connection, "data-tone", tone);
    setText(connection, words);
  },
});

const followLink = () => {
  const linked = /^#request\/(.+)$/.exec(location.hash);
  if (linked) showRequest(decodeURIComponent(linked[1]));
};

addEventListener("hashchange", followLink);
live.start();
requests.update();
followLink();
