"""What shops call the columns of the data contract and their kinds of event, in several languages."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Final

USER: Final = "user_id"
ITEM: Final = "item_id"
KIND: Final = "event"
TIME: Final = "timestamp"
CLOCK: Final = "time of day"
"""No column of the contract: the second half of a timestamp whose first is a date."""
TITLE: Final = "title"
PRICE: Final = "price"
QUANTITY: Final = "quantity"
VALUE: Final = "value"
SESSION: Final = "session_id"
PARENT: Final = "parent"
ORDER: Final = "order"

NAMES: Final[dict[str, str]] = {
    USER: (
        "user_id userid user uid customer_id customerid customer customer_number client_id client "
        "clientid kunden_id kundennummer kundennr kunden_nr kd_nr kunde kundin member_id member shopper_id "
        "shopper visitorid visitor_id visitor household_key household_id user_pseudo_id buyer_id buyer "
        "cliente_id id_cliente cliente usuario utilisateur id_client acheteur klant klantnummer email "
        "e_mail mail customer_email billing_email email_address profile_id account_id person_id "
        "reviewerid reviewer_id cookie_id device_id anonymous_id session_id sessionid session"
    ),
    ITEM: (
        "item_id itemid product_id productid sku id article_id articleid artikel_id artikelnummer artikelnr "
        "artikel_nr art_nr artnr variant_sku variant_id product_code produktnummer produkt_id produktid "
        "stockcode stock_code asin aid parent_asin codigo cod_produto id_produto produto_id produto "
        "id_producto producto_id codigo_producto referencia reference ref id_produit produit article "
        "artikel product item movieid movie_id book_id isbn ean gtin upc barcode item_sku product_sku "
        "lineitem_sku mpn code"
    ),
    KIND: (
        "event event_type eventtype event_name action action_type behavior behaviour behavior_type kind "
        "activity interaction interaction_type ereignis aktion evento acao accion evenement type"
    ),
    TIME: (
        "timestamp event_time event_timestamp event_date time datetime date ts created_at created "
        "order_date orderdate purchase_date order_time invoicedate invoice_date bestelldatum kaufdatum "
        "datum zeit zeitpunkt zeitstempel data data_pedido data_compra fecha fecha_pedido date_commande "
        "date_achat occurred_at happened_at at when unixtime unixreviewtime t_dat purchased_at day "
        "bestellt_am"
    ),
    TITLE: (
        "title name product_title product_name productname item_name itemname item_title produktname "
        "produkttitel artikelbezeichnung artikelname bezeichnung titel nome nome_produto nombre "
        "nombre_producto titulo produto nom titre libelle designation denominazione descrizione naam "
        "omschrijving label prod_name headline short_description description beschreibung descricao "
        "descripcion"
    ),
    PRICE: (
        "price unit_price unitprice sale_price regular_price preis vk preis_brutto verkaufspreis "
        "vk_brutto vk_preis brutto preco preco_venda precio prix prezzo prijs amount list_price "
        "selling_price variant_price"
    ),
    QUANTITY: (
        "quantity qty count units amount_of_items menge anzahl stueckzahl quantidade qtd cantidad "
        "quantite aantal"
    ),
    VALUE: (
        "value revenue total line_total amount sum umsatz betrag valor montant importe rating score "
        "overall stars"
    ),
    SESSION: (
        "order_id orderid order_number order_no order invoice invoiceno invoice_no bestellnummer bestellnr "
        "auftragsnummer pedido numero_pedido commande session_id sessionid session basket_id "
        "transaction_id transactionid"
    ),
    ORDER: "position sequence seq seq_no step rank order_in_session add_to_cart_order line_no",
    PARENT: "parent parent_id parent_sku product_group item_group_id handle parent_product_id",
}
"""Contract column -> names, the surest first, in lower case without accents, words joined by `_`."""

_KINDS: Final[dict[str, str]] = {
    "view": (
        "view views viewed product_view page_view pageview view_item view_product item_view detail "
        "detail_view pdp visit seen browse ansicht angesehen aufruf visualizacao vista vue productview pv"
    ),
    "click": "click clicks clicked select_item klick geklickt clique clic",
    "add_to_cart": (
        "add_to_cart addtocart cart carts added_to_cart add_cart add_to_basket basket in_cart warenkorb "
        "in_den_warenkorb adicionar_ao_carrinho carrinho carrito ajout_panier panier atc"
    ),
    "purchase": (
        "purchase purchases purchased transaction transactions order orders ordered buy buys bought sale "
        "sold checkout_complete completed kauf gekauft bestellung bestellt compra comprado achat commande "
        "pedido conversion"
    ),
    "impression": "impression impressions view_item_list shown exposure displayed list_view",
}

_UNDONE: Final = frozenset(
    "remove_from_cart removefromcart remove_cart remove return returned refund refunded cancel cancelled "
    "canceled storno retoure unsubscribe dislike logout login search".split()
)
"""Kinds that are no choice of an item."""


@cache
def plain(name: str) -> str:
    """Write a name in lower case, without accents, its words joined by `_`: `Bestell-Nr.` is `bestell_nr`."""
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip())
    letters = (
        unicodedata.normalize("NFKD", split.replace("ß", "ss")).encode("ascii", "ignore").decode().lower()
    )
    return re.sub(r"[^a-z0-9]+", "_", letters).strip("_")


_LISTS: Final = {role: names.split() for role, names in NAMES.items()}
_KIND_OF: Final = {word: kind for kind, words in _KINDS.items() for word in words.split()}


def name_score(role: str, name: str) -> float:
    """Return how much a column's name says that it has a role: 1 for the usual name, 0 for none of them."""
    written, known = plain(name), _LISTS[role]
    flat = written.replace("_", "")
    for place, candidate in enumerate(known):
        if written == candidate or flat == candidate.replace("_", ""):
            return 1.0 - 0.4 * place / len(known)
    parts = set(written.split("_"))
    best = 0.0
    for place, candidate in enumerate(known):
        if set(candidate.split("_")) <= parts and len(candidate) > 2:
            best = max(best, 0.6 - 0.3 * place / len(known))
    return best


def is_no_choice(value: str) -> bool:
    """Whether a kind says that an item was put back, or nothing about an item."""
    return plain(value) in _UNDONE


def usual_kind(value: str) -> str | None:
    """Return the contract's kind that a shop's own name for it means, or None."""
    return _KIND_OF.get(plain(value))
