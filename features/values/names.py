"""Usual names of the data contract's columns and of event kinds, in several languages."""

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
"""Role of a time of day beside a date; no column of the contract."""
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
        "cliente_id id_cliente cliente codigo_cliente cod_cliente codice_cliente numero_cliente no_cliente "
        "usuario utilisateur id_client code_client n_client no_client num_client numero_client ref_client "
        "acheteur comprador acquirente klant klantnummer klantnr klant_nr klant_id klantcode klient klienta "
        "id_klienta nr_klienta numer_klienta kod_klienta kupujacy nabywca uzytkownik debitor debitorennummer "
        "debitorennr debiteur kaeufer kaufer email e_mail mail customer_email billing_email email_address "
        "email_cliente email_client correo_electronico correo courriel adresse_e_mail e_mailadres emailadres "
        "adres_e_mail cpf profile_id account_id person_id reviewerid reviewer_id cookie_id device_id "
        "anonymous_id session_id sessionid session key"
    ),
    ITEM: (
        "item_id itemid product_id productid sku id article_id articleid artikel_id artikelnummer artikelnr "
        "artikel_nr art_nr artnr variant_sku variant_id product_code produktnummer produkt_id produktid "
        "produktcode artikelcode productcode productnummer warennummer stockcode stock_code asin aid "
        "parent_asin codigo cod_produto id_produto codigo_do_produto codigo_produto produto_id produto "
        "id_producto producto_id codigo_producto codigo_de_producto codigo_articulo id_articulo articulo "
        "codice_articolo codice_prodotto cod_articolo id_prodotto codice articolo prodotto kod_produktu "
        "kod_towaru id_produktu nr_produktu numer_produktu indeks symbol towar referencia reference_produit "
        "ref_produit reference_article code_article code_produit reference ref ugs id_produit produit "
        "article artikel product item movieid movie_id book_id isbn ean gtin upc barcode item_sku "
        "product_sku lineitem_sku mpn app_id game_id game_title game song_id track_id artist_id "
        "recipe_id code key"
    ),
    KIND: (
        "event event_type eventtype event_name action action_type behavior behaviour behavior_type kind "
        "activity interaction interaction_type ereignis ereignisart aktion evento tipo_evento tipo_de_evento "
        "acao accion azione evenement type_evenement gebeurtenis actie zdarzenie akcja type"
    ),
    TIME: (
        "timestamp event_time event_timestamp event_date time datetime date ts created_at created "
        "order_date orderdate purchase_date order_time invoicedate invoice_date bestelldatum auftragsdatum "
        "kaufdatum belegdatum rechnungsdatum verkaufsdatum datum zeit zeitpunkt zeitstempel data data_pedido "
        "data_do_pedido data_compra data_da_compra data_venda data_da_venda data_ordine data_acquisto "
        "data_vendita data_zamowienia data_zakupu data_sprzedazy fecha fecha_pedido fecha_de_pedido "
        "fecha_compra fecha_de_compra fecha_venta fecha_de_venta date_commande date_de_commande date_achat "
        "date_vente date_de_vente horodatage besteldatum orderdatum aankoopdatum factuurdatum tijdstip "
        "occurred_at happened_at at when wann quando cuando quand unixtime unixreviewtime t_dat "
        "purchased_at day bestellt_am"
    ),
    TITLE: (
        "title name product_title product_name productname item_name itemname item_title produktname "
        "produkttitel artikelbezeichnung produktbezeichnung artikelname warenbezeichnung bezeichnung titel "
        "nome nome_produto nome_do_produto nome_prodotto titolo nombre nombre_producto nombre_del_producto "
        "nombre_articulo titulo produto nom nom_produit nom_du_produit titre libelle intitule designation "
        "denominazione nazwa nazwa_produktu nazwa_towaru naam productnaam artikelnaam artikelomschrijving "
        "omschrijving label prod_name headline short_description description beschreibung descricao "
        "descripcion descrizione opis"
    ),
    PRICE: (
        "price unit_price unitprice sale_price regular_price preis vk preis_brutto verkaufspreis "
        "vk_brutto vk_preis bruttopreis einzelpreis brutto preco preco_venda preco_de_venda preco_unitario "
        "precio precio_unitario precio_venta precio_de_venta pvp prix prix_ttc prix_unitaire prix_de_vente "
        "tarif prezzo prezzo_unitario prezzo_di_vendita prezzo_di_listino prijs verkoopprijs stuksprijs cena "
        "cena_brutto cena_sprzedazy amount list_price selling_price variant_price"
    ),
    QUANTITY: (
        "quantity qty count units amount_of_items menge anzahl stueckzahl stuckzahl bestellmenge quantidade "
        "qtd qtde cantidad unidades quantite qte quantita qta pezzi aantal hoeveelheid ilosc sztuk"
    ),
    VALUE: (
        "value revenue total line_total amount sum umsatz betrag gesamtbetrag valor montant montant_ttc "
        "total_ttc importe importo totale bedrag totaal kwota wartosc rating score overall stars"
    ),
    SESSION: (
        "order_id orderid order_number order_no order invoice invoiceno invoice_no bestellnummer bestellnr "
        "bestell_nr auftragsnummer auftragsnr auftrags_nr belegnummer belegnr rechnungsnummer pedido "
        "numero_pedido no_pedido id_pedido numero_do_pedido no_do_pedido factura commande n_commande "
        "no_commande num_commande numero_commande id_commande facture numero_ordine id_ordine ordine fattura "
        "scontrino ordernummer ordernr bestelnummer bestelling factuurnummer nr_zamowienia "
        "numer_zamowienia id_zamowienia zamowienie paragon session_id sessionid session basket_id "
        "transaction_id transactionid"
    ),
    ORDER: "position sequence seq seq_no step rank order_in_session add_to_cart_order line_no",
    PARENT: (
        "parent parent_id parent_sku product_group item_group_id handle parent_product_id "
        "ubergeordnetes_produkt hauptartikel"
    ),
}
"""Contract column -> names, the most certain first, normalised by `normalised_name`."""

_KINDS: Final[dict[str, str]] = {
    "view": (
        "view views viewed product_view page_view pageview view_item view_product item_view detail "
        "detail_view pdp visit seen browse ansicht angesehen aufruf visualizacao visualizacion "
        "visualizzazione vista visto vue consultation bekeken weergave wyswietlenie productview pv"
    ),
    "click": "click clicks clicked select_item klick geklickt clique clic klik klikniecie",
    "add_to_cart": (
        "add_to_cart addtocart cart carts added_to_cart add_cart add_to_basket basket in_cart warenkorb "
        "in_den_warenkorb adicionar_ao_carrinho carrinho carrito anadir_al_carrito ajout_panier "
        "ajout_au_panier panier carrello aggiunta_al_carrello winkelwagen in_winkelwagen koszyk atc"
    ),
    "purchase": (
        "purchase purchases purchased transaction transactions order orders ordered buy buys bought sale "
        "sold checkout_complete completed kauf gekauft verkauf bestellung bestellt compra comprado venta "
        "venda achat vente commande pedido acquisto ordine aankoop gekocht bestelling zakup zamowienie "
        "conversion"
    ),
    "impression": "impression impressions view_item_list shown exposure displayed list_view",
}

_UNDONE: Final = frozenset(
    "remove_from_cart removefromcart remove_cart remove return returned refund refunded cancel cancelled "
    "canceled storno retoure unsubscribe dislike logout login search".split()
)
"""Kinds that are not interactions with an item."""


_LETTERS: Final = str.maketrans({"ß": "ss", "ł": "l", "Ł": "L", "ø": "o", "æ": "ae"})
"""Letters that do not decompose into a base letter and an accent."""


@cache
def normalised_name(name: str) -> str:
    """Return a name in lower case, without accents, words joined by `_`: `Bestell-Nr.` is `bestell_nr`."""
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip())
    letters = unicodedata.normalize("NFKD", split.translate(_LETTERS)).encode("ascii", "ignore")
    return re.sub(r"[^a-z0-9]+", "_", letters.decode().lower()).strip("_")


LIKELY: Final = 0.5
"""Score above which a name alone determines a column's role."""
_LISTS: Final = {role: names.split() for role, names in NAMES.items()}
_KIND_OF: Final = {word: kind for kind, words in _KINDS.items() for word in words.split()}


def name_score(role: str, name: str) -> float:
    """Return how well a column's name fits a role: 1 for the usual name, 0 for no match."""
    written, known = normalised_name(name), _LISTS[role]
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


def is_not_interaction(value: str) -> bool:
    """Return whether a kind means that an item was put back, or concerns no item."""
    return normalised_name(value) in _UNDONE


def usual_kind(value: str) -> str | None:
    """Return the contract's kind of a shop's own name for it, or None."""
    return _KIND_OF.get(normalised_name(value))
