// A client of shelfwise for Node: reads the proto at start, so nothing has to be generated.
//
//   const shelfwise = new Shelfwise('localhost:50051', { apiKey: process.env.SHELFWISE_KEY });
//   const page = await shelfwise.recommend({ user_id: 'u1', page_size: 10 });
//
// Fields have the names of the proto file. Failures are the errors of @grpc/grpc-js: `code`, `details`, `metadata`.
import { existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';
import protobuf from 'protobufjs';

// The package has a copy of the proto; in the repository it is read where it lies.
const [PROTO] = ['./recommendations.proto', '../../proto/shelfwise/v1/recommendations.proto']
  .map((path) => fileURLToPath(new URL(path, import.meta.url)))
  .filter(existsSync);
const FIELD_BEHAVIOR = 'google/api/field_behavior.proto'; // says which fields are required: no client needs it
const DEADLINE_MS = 2000;
const BROKEN_STREAMS = 8; // that may follow one another without a message
const LONGEST_WAIT_MS = 5000;

// Only these are tried again: every other failure would be the same the next time. A caller gets CANCELLED from
// gRPC itself, on a server that shuts down, for a call that no handler has seen.
// A name with several addresses is a fleet: calls take turns, and a repeated call goes to another server.
const SERVICE_CONFIG = JSON.stringify({
  loadBalancingConfig: [{ round_robin: {} }],
  methodConfig: [{
    name: [{ service: 'shelfwise.v1.RecommendationService' }],
    retryPolicy: {
      maxAttempts: 4,
      initialBackoff: '0.2s',
      maxBackoff: '1s',
      backoffMultiplier: 2,
      retryableStatusCodes: ['UNAVAILABLE', 'CANCELLED'],
    },
  }],
});

/** Attributes (text, numbers, true and false, null, and lists of these) as a google.protobuf.Struct. */
export function struct(attributes) {
  return { fields: Object.fromEntries(Object.entries(attributes).map(([name, value]) => [name, toValue(value)])) };
}

/** The attributes of a google.protobuf.Struct. */
export function plain({ fields }) {
  return Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, fromValue(value)]));
}

/** The service's definition, without the import that only tools read. */
function definition() {
  const root = new protobuf.Root();
  root.resolvePath = (origin, target) => (target === FIELD_BEHAVIOR ? null : protobuf.util.path.resolve(origin, target));
  root.loadSync(PROTO, { keepCase: true });
  return protoLoader.fromJSON(root.toJSON(), { longs: String, enums: String, defaults: true, oneofs: true });
}

// The loader knows this message by itself, in camel case.
function toValue(value) {
  if (value === null || value === undefined) return { nullValue: 'NULL_VALUE' };
  if (Array.isArray(value)) return { listValue: { values: value.map(toValue) } };
  return { [{ boolean: 'boolValue', number: 'numberValue' }[typeof value] ?? 'stringValue']: value };
}

function fromValue(value) {
  if (value.kind === 'nullValue') return null;
  return value.kind === 'listValue' ? value.listValue.values.map(fromValue) : value[value.kind];
}

/** Calls a server; create one per process and share it. */
export class Shelfwise {
  /**
   * @param {string} address HOST:PORT
   * @param {object} options
   * @param {string} [options.apiKey] sent with every call
   * @param {Buffer} [options.rootCertificate] PEM; connects by TLS
   * @param {number} [options.deadlineMs] of calls that set none
   */
  constructor(address, { apiKey, rootCertificate, deadlineMs = DEADLINE_MS } = {}) {
    const { RecommendationService } = grpc.loadPackageDefinition(definition()).shelfwise.v1;
    const credentials = rootCertificate ? grpc.credentials.createSsl(rootCertificate) : grpc.credentials.createInsecure();
    this.client = new RecommendationService(address, credentials, { 'grpc.service_config': SERVICE_CONFIG });
    this.apiKey = apiKey;
    this.deadlineMs = deadlineMs;
  }

  /** One page of a personalised list: RecommendRequest -> RecommendResponse. */
  recommend(request, deadlineMs) {
    return this.#call('Recommend', request, deadlineMs);
  }

  /** Store what shoppers did: RecordEventsRequest -> RecordEventsResponse. */
  recordEvents(request, deadlineMs) {
    return this.#call('RecordEvents', request, deadlineMs);
  }

  /** An item as it is served: its attributes by name. */
  async getItem(itemId, deadlineMs) {
    return plain((await this.#call('GetItem', { item_id: itemId }, deadlineMs)).item.attributes);
  }

  /** Change some attributes of an item, null takes one away, and return all of them as they are then. */
  async updateItem(itemId, attributes, deadlineMs) {
    const request = { item: { item_id: itemId, attributes: struct(attributes) } };
    return plain((await this.#call('UpdateItem', request, deadlineMs)).item.attributes);
  }

  /** Change attributes of many items: an object of attributes by item id -> BatchUpdateItemsResponse. */
  updateItems(attributesById, deadlineMs) {
    const requests = Object.entries(attributesById).map(([itemId, attributes]) => (
      { item: { item_id: itemId, attributes: struct(attributes) } }));
    return this.#call('BatchUpdateItems', { requests }, deadlineMs);
  }

  /** The lists of many users, one after another; a broken stream is gone on with. BatchRecommendRequest. */
  async *batchRecommend(request) {
    let resumeToken = request.resume_token ?? '';
    let left = Number(request.max_users ?? 0);
    for (let broken = 0; ;) {
      // No deadline: a campaign takes as long as it takes. Reading slowly slows the server down.
      const stream = this.client.BatchRecommend(
        { ...request, resume_token: resumeToken, max_users: left }, this.#metadata());
      try {
        for await (const message of stream) {
          broken = 0;
          resumeToken = message.resume_token;
          yield message;
          if (left > 0 && --left === 0) return;
        }
        return;
      } catch (error) {
        // A server that stops ends the streams of slow readers with CANCELLED.
        const passing = [grpc.status.UNAVAILABLE, grpc.status.CANCELLED].includes(error.code);
        if (!passing || ++broken >= BROKEN_STREAMS) throw error;
        await sleep(Math.min(200 * 2 ** (broken - 1), LONGEST_WAIT_MS));
      } finally {
        stream.cancel();
      }
    }
  }

  /** Everything that is stored of a user, oldest first, one StoredEvent after another; nothing is resumed. */
  async *exportUser(userId) {
    const stream = this.client.ExportUser({ user_id: userId }, this.#metadata());
    try {
      for await (const message of stream) yield* message.events;
    } finally {
      stream.cancel();
    }
  }

  /** Close the connection. */
  close() {
    this.client.close();
  }

  #metadata() {
    const metadata = new grpc.Metadata();
    if (this.apiKey) metadata.set('authorization', `Bearer ${this.apiKey}`);
    return metadata;
  }

  #call(method, request, deadlineMs = this.deadlineMs) {
    return new Promise((resolve, reject) => {
      this.client[method](request, this.#metadata(), { deadline: Date.now() + deadlineMs },
        (error, response) => (error ? reject(error) : resolve(response)));
    });
  }
}
