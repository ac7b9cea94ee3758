// node example.js HOST:PORT USER  -- a list, what the shopper did on it, and lists for a campaign.
import { Shelfwise } from 'shelfwise-client';

const [address = 'localhost:50051', user = 'u1'] = process.argv.slice(2);
const shelfwise = new Shelfwise(address, { apiKey: process.env.SHELFWISE_KEY });

const page = await shelfwise.recommend({
  user_id: user,
  session: { device: 'phone', hour: new Date().getHours() },
  page_size: 3,
  surface: 'home',
  explain: true,
  rules: { exploration: { share: 0.1 } },
});
console.log(`${page.items.length} items from ${page.model_version}, ${page.degradation}`);
for (const item of page.items) {
  console.log(`${item.list_position}. ${item.item_id} ${item.title} (${item.source})`);
}

// Everything that happens on the list carries its token and the item's place in it.
const seen = page.items.map((item) => ({
  user_id: user,
  item_id: item.item_id,
  event: 'impression',
  attribution_token: page.attribution_token,
  list_position: item.list_position,
}));
const [first] = page.items;
const click = { ...seen[0], event: 'click', event_id: `click-${page.request_id}-${first.item_id}` };
const recorded = await shelfwise.recordEvents({ events: [...seen, click] });
console.log(`${recorded.new_count} new events, ${recorded.rejects.length} rejected`);

let users = 0;
for await (const list of shelfwise.batchRecommend({ all_users: true, list_size: 2, surface: 'mail' })) {
  users += 1;
  if (list.error) console.log(`${list.user_id}: ${list.error.reason}`);
  else console.log(`${list.user_id}: ${list.items.map((item) => item.item_id).join(', ')}`);
}
console.log(`${users} users`);
shelfwise.close();
